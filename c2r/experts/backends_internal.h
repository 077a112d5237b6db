// Declares the functions of each GEMM backend for the table in grouped_gemm.cc.
#pragma once

#include "c2r/experts/grouped_gemm.h"

#define C2R_DECLARE_GEMM_BACKEND(backend)                                                    \
  namespace backend {                                                                        \
  std::string why_not(ElementType weights, Arithmetic arithmetic);                           \
  std::int64_t packed_row_bytes(std::int64_t num_inputs);                                    \
  void pack(std::span<const float* const> rows, std::int64_t num_inputs, std::byte* packed); \
  void multiply(const GemmBlock& block);                                                     \
  }

namespace c2r {

C2R_DECLARE_GEMM_BACKEND(avx512_bf16)
C2R_DECLARE_GEMM_BACKEND(vectors)
C2R_DECLARE_GEMM_BACKEND(reference)

}  // namespace c2r

#undef C2R_DECLARE_GEMM_BACKEND
