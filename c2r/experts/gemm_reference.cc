// Reference backend: computes each product by its definition, with sums in double.
#include <cstring>
#include <vector>

#include "c2r/experts/backends_internal.h"

namespace c2r::reference {

std::string why_not(ElementType, Arithmetic) {
  return {};
}

std::int64_t packed_row_bytes(std::int64_t num_inputs) {
  return num_inputs * static_cast<std::int64_t>(sizeof(float));
}

void pack(std::span<const float* const> rows, std::int64_t num_inputs, std::byte* packed) {
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(num_inputs));
  if (row_bytes == 0) return;
  for (const float* const row : rows) {
    std::memcpy(packed, row, row_bytes);
    packed += row_bytes;
  }
}

void multiply(const GemmBlock& block) {
  const auto num_inputs = static_cast<std::size_t>(block.weight.cols());
  const auto* const x = reinterpret_cast<const float*>(block.x);
  std::vector<float> weights(num_inputs);
  for (std::int64_t output = 0; output < block.weight.rows(); ++output) {
    block.weight.read_row(output, weights);
    for (std::int64_t row = 0; row < block.num_rows; ++row) {
      double sum = block.bias == nullptr ? 0.0 : double{block.bias[output]};
      const float* const inputs = x + row * block.weight.cols();
      for (std::size_t i = 0; i < num_inputs; ++i) sum += double{inputs[i]} * double{weights[i]};
      block.out[row * block.out_stride + output] = static_cast<float>(sum);
    }
  }
}

}  // namespace c2r::reference
