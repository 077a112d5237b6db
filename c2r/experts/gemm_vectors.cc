// f32 products with whatever vectors the processor has; weights are widened as they are read.
// Highway compiles what is between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE once per
// instruction set and picks one at run time.
#include <algorithm>
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

// Instruction sets with 32 vector registers keep a tile of 4 x 6 sums, the others 4 x 2.
constexpr int kTileOutputs = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM ? 6 : 2;

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

// One panel of kRows packed rows by kOutputs outputs, from output `first` of the block.
template <int kRows, int kOutputs, class Weight>
void multiply_tile(const GemmBlock& block, const float* x, std::int64_t first, float* out) {
  const Floats d;
  const std::int64_t step = lanes(), num_inputs = block.weight.num_inputs;
  const auto* const w = reinterpret_cast<const Weight*>(block.weight.row(first));
  const std::int64_t stride = block.weight.stride;
  Sums sums[kRows][kOutputs];
  for (auto& row : sums) {
    for (Sums& sum : row) sum = hn::Zero(d);
  }
  const auto add = [&](const Weight* weights, std::int64_t weight_stride) HWY_ATTR {
    Sums inputs[kRows];
    for (int r = 0; r < kRows; ++r) inputs[r] = hn::LoadU(d, x + r * step);
    for (int n = 0; n < kOutputs; ++n) {
      const Sums weight = load(weights + n * weight_stride);
      for (int r = 0; r < kRows; ++r) sums[r][n] = hn::MulAdd(inputs[r], weight, sums[r][n]);
    }
    x += kRows * step;
  };
  std::int64_t i = 0;
  for (; i + step <= num_inputs; i += step) add(w + i, stride);
  if (i < num_inputs) {  // a copy, with zeros at the end, of what the rows have left
    Weight rest[kOutputs * 16] = {};
    for (int n = 0; n < kOutputs; ++n)
      std::copy_n(w + n * stride + i, num_inputs - i, rest + n * 16);
    add(rest, 16);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kOutputs; ++n) {
      const float bias = block.bias == nullptr ? 0.0f : block.bias[first + n];
      out[r * block.out_stride + n] = hn::GetLane(hn::SumOfLanes(d, sums[r][n])) + bias;
    }
  }
}

template <int kOutputs, class Weight>
void multiply_panels(const GemmBlock& block, std::int64_t first) {
  const std::int64_t row_floats = (block.weight.num_inputs + lanes() - 1) / lanes() * lanes();
  for (std::int64_t row = 0; row < block.num_rows; row += kPanelRows) {
    const float* const x = reinterpret_cast<const float*>(block.x) + row * row_floats;
    float* const out = block.out + row * block.out_stride + first;
    switch (std::min(kPanelRows, block.num_rows - row)) {
      case 1:
        multiply_tile<1, kOutputs, Weight>(block, x, first, out);
        break;
      case 2:
        multiply_tile<2, kOutputs, Weight>(block, x, first, out);
        break;
      case 3:
        multiply_tile<3, kOutputs, Weight>(block, x, first, out);
        break;
      default:
        multiply_tile<4, kOutputs, Weight>(block, x, first, out);
    }
  }
}

template <class Weight>
void multiply_weights(const GemmBlock& block) {
  std::int64_t first = 0;
  for (; first + kTileOutputs <= block.weight.num_outputs; first += kTileOutputs) {
    multiply_panels<kTileOutputs, Weight>(block, first);
  }
  for (; first < block.weight.num_outputs; ++first) multiply_panels<1, Weight>(block, first);
}

void multiply_block(const GemmBlock& block) {
  switch (block.weight.type) {
    case WeightType::kF32:
      return multiply_weights<float>(block);
    case WeightType::kF16:
      return multiply_weights<Half>(block);
    case WeightType::kBf16:
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

std::string why_not(WeightType, Arithmetic) {
  return {};
}

std::int64_t packed_row_bytes(std::int64_t num_inputs) {
  const std::int64_t step = HWY_DYNAMIC_DISPATCH(lanes)();
  return (num_inputs + step - 1) / step * step * static_cast<std::int64_t>(sizeof(float));
}

// [num_inputs / lanes][num_rows][lanes] floats, zeros at the end.
void pack(MatrixView<const float> x, std::byte* packed) {
  const std::int64_t step = HWY_DYNAMIC_DISPATCH(lanes)();
  auto* to = reinterpret_cast<float*>(packed);
  for (std::int64_t i = 0; i < x.cols(); i += step) {
    const std::int64_t count = std::min(step, x.cols() - i);
    for (std::int64_t row = 0; row < x.rows(); ++row, to += step) {
      std::copy_n(x.data() + row * x.cols() + i, count, to);
      std::fill(to + count, to + step, 0.0f);
    }
  }
}

void multiply(const GemmBlock& block) {
  HWY_DYNAMIC_DISPATCH(multiply_block)(block);
}

}  // namespace vectors
}  // namespace c2r
#endif  // HWY_ONCE
