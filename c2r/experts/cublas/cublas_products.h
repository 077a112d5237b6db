// Products of the experts by cuBLAS. Built only where nvcc is.
#pragma once

#include <memory>

#include "c2r/experts/cuda/grouped_products.h"

namespace c2r {

/// Makes the products of cuBLAS on the current device of the calling thread: one call of
/// cublasGemmGroupedBatchedEx for outputs and for gradients of inputs, and one of cublasGemmEx for
/// each gradient of weights, since the grouped call does not add products of bf16 up in f32 memory.
/// @returns products for streams of make_cuda_stream() of that device
/// @throws Error(kTransport) if cuBLAS cannot be started
std::unique_ptr<GroupedProducts> make_cublas_products();

}  // namespace c2r
