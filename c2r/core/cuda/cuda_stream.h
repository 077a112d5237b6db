// Streams of an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <cstdint>
#include <memory>

#include "c2r/core/cuda/device_stream.h"

namespace c2r {

/// @returns how many NVIDIA GPUs this process can use; 0 without a driver
int num_cuda_devices();

/// Makes a stream of a device, and the device the current one of the calling thread. Memory comes
/// from the device's pool, which keeps what is freed.
/// @throws Error(kUnsupported) if there is no such device
std::unique_ptr<DeviceStream> make_cuda_stream(int device);

/// Turns the status of a call of the CUDA runtime into an error.
/// @param status a cudaError_t
/// @throws Error(kTransport) with the call's name and the runtime's message
void check_cuda(int status, const char* call);

}  // namespace c2r
