// Backend with bf16 products by VDPBF16PS, 32 at a time (Intel from Cooper Lake, AMD from Zen 4).
//
// Written with intrinsics, because Debian's Highway has no such operation, and with a target
// attribute on each function, because a flag for the file would also compile functions of the
// standard library for processors that others do not have.
#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 warns of its own _mm512_undefined_ps()
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "c2r/experts/backends_internal.h"

#define C2R_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace c2r::avx512_bf16 {
namespace {

constexpr std::int64_t kLanes = 32;  // bf16 of a vector
// 4 x 6 sums, 4 inputs and a weight fill 29 of 32 registers.
constexpr std::int64_t kTileOutputs = 6;

// The inputs of a last, partial step.
C2R_AVX512_BF16 inline __mmask32 tail_mask(std::int64_t num_inputs) {
  return static_cast<__mmask32>((std::uint64_t{1} << (num_inputs % kLanes)) - 1);
}

C2R_AVX512_BF16 inline __m512bh load(const std::byte* from) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
}

C2R_AVX512_BF16 inline __m512bh load_masked(__mmask32 mask, const std::byte* from) {
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(mask, from));
}

// The sums of the lanes of four vectors. Each is added in the same order.
C2R_AVX512_BF16 inline __m128 add_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d ab_pairs = _mm512_castps_pd(ab), cd_pairs = _mm512_castps_pd(cd);
  const __m512 abcd = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab_pairs, cd_pairs)),
                                    _mm512_castpd_ps(_mm512_unpackhi_pd(ab_pairs, cd_pairs)));
  const __m256 half =
      _mm256_add_ps(_mm512_castps512_ps256(abcd),
                    _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(abcd), 1)));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Rows of weights that are fetched into the second-level cache while a panel is multiplied, because
// the next tile needs them: a row of weights is about as long as a page, and hardware prefetchers
// stop at the end of a page. Each panel fetches a part, so that memory is read all the time.
struct RowsAhead {
  const std::byte* begin;
  std::int64_t num_rows;
};

// Panel `panel` of `num_panels` fetches its share of the tile of outputs from `next` on.
RowsAhead rows_ahead(const RowsView& weight, std::int64_t next, std::int64_t panel,
                     std::int64_t num_panels) {
  const std::int64_t num_rows = std::min(kTileOutputs, weight.rows() - next);
  const std::int64_t share = (num_rows + num_panels - 1) / num_panels;
  const std::int64_t first = std::min(panel * share, num_rows);
  if (first == num_rows) return {nullptr, 0};
  return {weight.row(next + first), std::min(share, num_rows - first)};
}

// Multiplies one panel of kRows packed rows by kOutputs outputs, from output `first` of the block
// on.
template <int kRows, int kOutputs>
C2R_AVX512_BF16 void multiply_tile(const GemmBlock& block, const std::byte* x, std::int64_t first,
                                   RowsAhead ahead, float* out) {
  constexpr std::int64_t kStepBytes = 64;
  const std::int64_t num_inputs = block.weight.cols();
  const std::int64_t stride_bytes = block.weight.stride() * 2;
  const std::byte* w = block.weight.row(first);
  constexpr int kSums = (kRows * kOutputs + 3) / 4 * 4;  // a multiple of four for add_lanes()
  // Every loop over the sums is unrolled, or they would not stay in registers.
  __m512 sums[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_setzero_ps();

  for (std::int64_t step = 0; step < num_inputs / kLanes; ++step) {
    for (std::int64_t n = 0; n < ahead.num_rows; ++n) {
      constexpr int kForReading = 0, kIntoSecondLevel = 2;
      __builtin_prefetch(ahead.begin + n * stride_bytes + step * kStepBytes, kForReading,
                         kIntoSecondLevel);
    }
    __m512bh inputs[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) inputs[r] = load(x + r * kStepBytes);
#pragma GCC unroll 6
    for (int n = 0; n < kOutputs; ++n) {
      const __m512bh weights = load(w + n * stride_bytes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sums[r * kOutputs + n] = _mm512_dpbf16_ps(sums[r * kOutputs + n], inputs[r], weights);
      }
    }
    x += kRows * kStepBytes;
    w += kStepBytes;
  }
  if (const __mmask32 mask = tail_mask(num_inputs); mask != 0) {
#pragma GCC unroll 6
    for (int n = 0; n < kOutputs; ++n) {
      const __m512bh weights = load_masked(mask, w + n * stride_bytes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sums[r * kOutputs + n] =
            _mm512_dpbf16_ps(sums[r * kOutputs + n], load(x + r * kStepBytes), weights);
      }
    }
  }

  alignas(16) float totals[kSums];
#pragma GCC unroll 6
  for (int i = 0; i < kSums; i += 4) {
    _mm_store_ps(totals + i, add_lanes(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]));
  }
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kOutputs; ++n) {
      const float bias = block.bias == nullptr ? 0.0f : block.bias[first + n];
      out[r * block.out_stride + n] = totals[r * kOutputs + n] + bias;
    }
  }
}

template <int kOutputs>
C2R_AVX512_BF16 void multiply_panels(const GemmBlock& block, std::int64_t first) {
  const std::int64_t row_bytes = packed_row_bytes(block.weight.cols());
  const std::int64_t num_panels = (block.num_rows + kPanelRows - 1) / kPanelRows;
  for (std::int64_t panel = 0; panel < num_panels; ++panel) {
    const std::int64_t row = panel * kPanelRows;
    const std::byte* const x = block.x + row * row_bytes;
    float* const out = block.out + row * block.out_stride + first;
    const RowsAhead ahead = rows_ahead(block.weight, first + kOutputs, panel, num_panels);
    switch (std::min(kPanelRows, block.num_rows - row)) {
      case 1:
        multiply_tile<1, kOutputs>(block, x, first, ahead, out);
        break;
      case 2:
        multiply_tile<2, kOutputs>(block, x, first, ahead, out);
        break;
      case 3:
        multiply_tile<3, kOutputs>(block, x, first, ahead, out);
        break;
      default:
        multiply_tile<4, kOutputs>(block, x, first, ahead, out);
    }
  }
}

}  // namespace

std::string why_not(ElementType weights, Arithmetic arithmetic) {
  if (arithmetic != Arithmetic::kBf16) return "it computes in bf16 only";
  if (weights != ElementType::kBf16) return "the weights are not bf16";
  const bool can = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl");
  return can ? "" : "the processor lacks AVX512-BF16";
}

std::int64_t packed_row_bytes(std::int64_t num_inputs) {
  return (num_inputs + kLanes - 1) / kLanes * kLanes * 2;
}

// [num_inputs / 32][num_rows][32] bf16, zeros at the end.
C2R_AVX512_BF16 void pack(std::span<const float* const> rows, std::int64_t num_inputs,
                          std::byte* packed) {
  for (std::int64_t i = 0; i < num_inputs; i += kLanes) {
    const std::int64_t left = std::min(kLanes, num_inputs - i);
    const auto mask = static_cast<std::uint32_t>((std::uint64_t{1} << left) - 1);
    for (const float* const row : rows) {
      const float* const from = row + i;
      const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
      const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
      _mm512_storeu_si512(packed, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
      packed += kLanes * 2;
    }
  }
}

void multiply(const GemmBlock& block) {
  std::int64_t first = 0;
  for (; first + kTileOutputs <= block.weight.rows(); first += kTileOutputs) {
    multiply_panels<kTileOutputs>(block, first);
  }
  for (; first < block.weight.rows(); ++first) multiply_panels<1>(block, first);
}

}  // namespace c2r::avx512_bf16
#endif  // __x86_64__
