// The kernels that move rows, on an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <memory>

#include "c2r/dispatch/cuda/device_row_mover.h"

namespace c2r {

/// @returns a launcher for streams of make_cuda_stream()
std::unique_ptr<RowLauncher> make_cuda_row_launcher();

}  // namespace c2r
