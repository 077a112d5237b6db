// Backend with f32 products in the widest vectors of the processor; weights are converted to f32
// when they are read. Highway compiles what is between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE
// once per instruction set and picks one at run time.
#include <algorithm>
#include <cstdint>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "c2r/experts/gemm_vectors.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/highway.h>

#include "c2r/experts/backends_internal.h"

HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::CappedTag<float, 16>;
using Sums = hn::Vec<Floats>;

// Instruction sets with 32 vector registers keep a tile of 4 x 6 sums, the others 4 x 3.
constexpr int kTileOutputs = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 6 : 3;

// A panel of 4 rows and 1024 inputs takes half of a first-level cache of 32 KiB, and stays there
// while it is multiplied by the weights of kGroupOutputs outputs. Between two chunks of inputs the
// sums of a tile are kept in memory.
constexpr std::int64_t kChunkInputs = 1024;
constexpr std::int64_t kGroupOutputs = 48;

HWY_INLINE Sums load(const float* from) {
  return hn::LoadU(Floats(), from);
}
HWY_INLINE Sums load(const Half* from) {
  const hn::Rebind<hwy::float16_t, Floats> d;
  return hn::PromoteTo(Floats(), hn::LoadU(d, reinterpret_cast<const hwy::float16_t*>(from)));
}
HWY_INLINE Sums load(const Bf16* from) {
  const hn::Rebind<hwy::bfloat16_t, Floats> d;
  return hn::PromoteTo(Floats(), hn::LoadU(d, reinterpret_cast<const hwy::bfloat16_t*>(from)));
}

std::int64_t lanes() {
  return static_cast<std::int64_t>(hn::Lanes(Floats()));
}

// The sums of the lanes of four vectors. Each is added in the same order.
HWY_INLINE void add_lanes(const Sums* four, float* totals) {
  const Floats d;
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i) totals[i] = hn::GetLane(hn::SumOfLanes(d, four[i]));
#else
  const hn::RepartitionToWide<Floats> pairs;
  const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, four[0], four[1]),
                                             hn::InterleaveUpper(d, four[0], four[1])));
  const auto cd = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, four[2], four[3]),
                                             hn::InterleaveUpper(d, four[2], four[3])));
  const auto abcd = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, ab, cd)),
                            hn::BitCast(d, hn::InterleaveUpper(pairs, ab, cd)));
  HWY_ALIGN float blocks[hn::MaxLanes(d)];
  hn::Store(abcd, d, blocks);
  const hn::Full128<float> block;
  auto sum = hn::Load(block, blocks);
  for (std::size_t i = 4; i < hn::MaxLanes(d); i += 4) {
    sum = hn::Add(sum, hn::Load(block, blocks + i));
  }
  hn::StoreU(sum, block, totals);
#endif
}

// Inputs [begin, end) of a panel of packed rows.
struct Chunk {
  const float* x;  // of the panel, from its first input on
  std::int64_t begin, end;
};

// Adds the products of whole vectors of inputs. Every loop over the sums is unrolled, because they
// would not stay in registers otherwise. With kPrefetches the addresses of the next tile's weights
// are prefetched: a row of weights is about as long as a page, and hardware prefetchers stop at the
// end of a page. This made products of one or two rows 1.3 times faster; products of many rows,
// whose weights are in a cache, become slower.
template <int kRows, int kOutputs, bool kPrefetches, class Weight>
HWY_INLINE void add_products(const Weight* w, std::int64_t stride, const float* x,
                             std::int64_t num_inputs, Sums* sums) {
  const Floats d;
  const std::int64_t step = lanes();
  for (std::int64_t i = 0; i < num_inputs; i += step, x += kRows * step) {
    Sums weights[kOutputs];
#pragma GCC unroll 6
    for (int n = 0; n < kOutputs; ++n) {
      const Weight* const at = w + n * stride + i;
      if constexpr (kPrefetches) __builtin_prefetch(at + kOutputs * stride);
      weights[n] = load(at);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Sums input = hn::LoadU(d, x + r * step);
#pragma GCC unroll 6
      for (int n = 0; n < kOutputs; ++n) {
        sums[r * kOutputs + n] = hn::MulAdd(input, weights[n], sums[r * kOutputs + n]);
      }
    }
  }
}

// Multiplies one panel of kRows packed rows by kOutputs outputs, from output `first` of the block
// on. The sums of the last chunk are written to the block's `out`; those of earlier chunks are
// written to `partial`, with which the next chunk begins.
template <int kRows, int kOutputs, bool kPrefetches, class Weight>
void multiply_tile(const GemmBlock& block, const Chunk& chunk, std::int64_t first, float* partial,
                   float* out) {
  const Floats d;
  const std::int64_t step = lanes(), num_inputs = block.weight.cols();
  const auto* const w = reinterpret_cast<const Weight*>(block.weight.row(first));
  const std::int64_t stride = block.weight.stride();
  constexpr int kSums = (kRows * kOutputs + 3) / 4 * 4;  // a multiple of four for add_lanes()
  Sums sums[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) {
    sums[i] = chunk.begin == 0 ? hn::Zero(d) : hn::LoadU(d, partial + i * step);
  }
  const std::int64_t whole_end = chunk.end / step * step;
  add_products<kRows, kOutputs, kPrefetches>(w + chunk.begin, stride, chunk.x + chunk.begin * kRows,
                                             whole_end - chunk.begin, sums);
  if (chunk.end < num_inputs) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) hn::StoreU(sums[i], d, partial + i * step);
    return;
  }
  if (whole_end < num_inputs) {  // a copy of the last weights of each row, padded with zeros
    Weight rest[kOutputs * 16] = {};
    for (int n = 0; n < kOutputs; ++n) {
      std::copy_n(w + n * stride + whole_end, num_inputs - whole_end, rest + n * 16);
    }
    add_products<kRows, kOutputs, false>(rest, 16, chunk.x + whole_end * kRows, step, sums);
  }
  float totals[kSums];
#pragma GCC unroll 6
  for (int i = 0; i < kSums; i += 4) add_lanes(sums + i, totals + i);
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kOutputs; ++n) {
      const float bias = block.bias == nullptr ? 0.0f : block.bias[first + n];
      out[r * block.out_stride + first + n] = totals[r * kOutputs + n] + bias;
    }
  }
}

// Multiplies one panel by the outputs [first, last), at most kGroupOutputs.
template <int kRows, bool kPrefetches, class Weight>
void multiply_panel(const GemmBlock& block, std::int64_t row, std::int64_t first,
                    std::int64_t last) {
  const std::int64_t num_inputs = block.weight.cols();
  const std::int64_t row_floats = (num_inputs + lanes() - 1) / lanes() * lanes();
  const float* const x = reinterpret_cast<const float*>(block.x) + row * row_floats;
  float* const out = block.out + row * block.out_stride;
  // Weights of a block with a single panel come from memory, which is fastest in long runs.
  const std::int64_t chunk_inputs = block.num_rows <= kPanelRows ? num_inputs : kChunkInputs;
  float partial[kGroupOutputs * kPanelRows * 16];
  std::int64_t begin = 0;
  do {
    const Chunk chunk{x, begin, std::min(begin + chunk_inputs, num_inputs)};
    std::int64_t n = first;
    for (; n + kTileOutputs <= last; n += kTileOutputs) {
      multiply_tile<kRows, kTileOutputs, kPrefetches, Weight>(
          block, chunk, n, partial + (n - first) * kPanelRows * 16, out);
    }
    for (; n < last; ++n) {
      multiply_tile<kRows, 1, false, Weight>(block, chunk, n,
                                             partial + (n - first) * kPanelRows * 16, out);
    }
    begin = chunk.end;
  } while (begin < num_inputs);
}

template <class Weight>
void multiply_weights(const GemmBlock& block) {
  for (std::int64_t first = 0; first < block.weight.rows(); first += kGroupOutputs) {
    const std::int64_t last = std::min(first + kGroupOutputs, block.weight.rows());
    for (std::int64_t row = 0; row < block.num_rows; row += kPanelRows) {
      switch (std::min(kPanelRows, block.num_rows - row)) {
        case 1:
          multiply_panel<1, true, Weight>(block, row, first, last);
          break;
        case 2:
          multiply_panel<2, true, Weight>(block, row, first, last);
          break;
        case 3:
          multiply_panel<3, true, Weight>(block, row, first, last);
          break;
        default:
          if (row == 0) {  // the others find the weights in a cache
            multiply_panel<4, true, Weight>(block, row, first, last);
          } else {
            multiply_panel<4, false, Weight>(block, row, first, last);
          }
      }
    }
  }
}

void multiply_block(const GemmBlock& block) {
  switch (block.weight.type()) {
    case ElementType::kF32:
      return multiply_weights<float>(block);
    case ElementType::kF16:
      return multiply_weights<Half>(block);
    case ElementType::kBf16:
      return multiply_weights<Bf16>(block);
  }
}

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace c2r {

HWY_EXPORT(lanes);
HWY_EXPORT(multiply_block);

namespace vectors {

std::string why_not(ElementType, Arithmetic) {
  return {};
}

std::int64_t packed_row_bytes(std::int64_t num_inputs) {
  const std::int64_t step = HWY_DYNAMIC_DISPATCH(lanes)();
  return (num_inputs + step - 1) / step * step * static_cast<std::int64_t>(sizeof(float));
}

// [num_inputs / lanes][num_rows][lanes] floats, zeros at the end.
void pack(std::span<const float* const> rows, std::int64_t num_inputs, std::byte* packed) {
  const std::int64_t step = HWY_DYNAMIC_DISPATCH(lanes)();
  auto* to = reinterpret_cast<float*>(packed);
  for (std::int64_t i = 0; i < num_inputs; i += step) {
    const std::int64_t count = std::min(step, num_inputs - i);
    for (const float* const row : rows) {
      std::copy_n(row + i, count, to);
      std::fill(to + count, to + step, 0.0f);
      to += step;
    }
  }
}

void multiply(const GemmBlock& block) {
  HWY_DYNAMIC_DISPATCH(multiply_block)(block);
}

}  // namespace vectors
}  // namespace c2r
#endif  // HWY_ONCE
