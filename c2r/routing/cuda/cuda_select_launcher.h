// The kernel that routes tokens, on an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <memory>

#include "c2r/routing/cuda/device_router.h"

namespace c2r {

/// @returns a launcher for streams of make_cuda_stream()
std::unique_ptr<SelectLauncher> make_cuda_select_launcher();

}  // namespace c2r
