// The kernels around the experts' products, on an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <memory>

#include "c2r/experts/cuda/device_experts.h"

namespace c2r {

/// @returns a launcher for streams of make_cuda_stream()
std::unique_ptr<ExpertLauncher> make_cuda_expert_launcher();

}  // namespace c2r
