// Starts the kernels of c2r.torch's operators on an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "c2r/dispatch/cuda/sums_by_source-inl.h"
#include "c2r/routing/cuda/choose-inl.h"

namespace c2r::python {

/// Enqueues a kernel of at least one block, whose memory is of `device`.
/// @param stream a cudaStream_t of `device`; 0 is its default stream
/// @throws Error(kTransport) if the device refuses
void launch_on_cuda(const std::variant<ChooseExperts, SumBySource, SumBySourceGradients>& kernel,
                    int device, std::uintptr_t stream);

/// @returns why kernels cannot run on a device, such as "no kernel image is available for execution
///          on the device"; empty if they can. Makes it the current device of the calling thread.
std::string why_not_on_cuda(int device);

}  // namespace c2r::python
