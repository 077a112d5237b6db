// Computes the experts of a process: one group of rows a slot, or row by row in double.
#include "c2r/experts/expert_compute.h"

#include "c2r/core/error.h"

namespace c2r {

void CpuExperts::check(std::span<const std::int64_t> offsets) const {
  C2R_REQUIRE(offsets.size() == slots_.size() + 1, kInvalidArgument,
              "there are {} slots, but {} offsets; give one more than slots", slots_.size(),
              offsets.size());
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    C2R_REQUIRE(slots_[slot] != nullptr || offsets[slot] == offsets[slot + 1], kInvalidArgument,
                "slot {} has no expert, but {} rows", slot, offsets[slot + 1] - offsets[slot]);
  }
}

void CpuExperts::forward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                         MatrixView<float> out) {
  check(offsets);
  std::vector<ExpertRows> groups;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    const auto begin = offsets[slot], end = offsets[slot + 1];
    if (begin == end) continue;
    groups.push_back({slots_[slot], rows.rows(begin, end), out.rows(begin, end)});
  }
  mlps_.run(groups);
}

void CpuExperts::backward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                          MatrixView<const float> dout, MatrixView<float> drows,
                          std::span<ExactExpert> dweights) {
  check(offsets);
  C2R_REQUIRE(dweights.size() == slots_.size(), kInvalidArgument,
              "there are {} slots, but gradients for {}", slots_.size(), dweights.size());
  std::vector<float> x(static_cast<std::size_t>(rows.cols()));
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    if (offsets[slot] == offsets[slot + 1]) continue;
    const ExactExpert expert = exact_expert(*slots_[slot]);
    for (std::int64_t row = offsets[slot]; row < offsets[slot + 1]; ++row) {
      rows.read_row(row, x);
      const auto dy = dout.row(row);
      const std::vector<double> exact_x(x.begin(), x.end()), exact_dy(dy.begin(), dy.end());
      std::vector<double> dx(x.size());
      exact_backward(expert, exact_x, exact_dy, dx, dweights[slot]);
      for (std::size_t c = 0; c < dx.size(); ++c) drows.row(row)[c] = static_cast<float>(dx[c]);
    }
  }
}

}  // namespace c2r
