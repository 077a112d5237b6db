// The kernels that make routes, on an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <memory>

#include "c2r/dispatch/cuda/device_routes.h"

namespace c2r {

/// @returns a launcher for streams of make_cuda_stream()
std::unique_ptr<RouteLauncher> make_cuda_route_launcher();

}  // namespace c2r
