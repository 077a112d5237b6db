// Problems for experts on a device, and how far from the exact experts their results may be: for a
// fake device and for a real one.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "c2r/core/rng.h"
#include "c2r/experts/cuda/device_experts.h"
#include "c2r/experts/testing_internal.h"

namespace c2r::testing {

inline std::vector<std::byte> bf16_bytes(std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() * 2);
  from_f32(values, ElementType::kBf16, bytes.data());
  return bytes;
}

/// Rows of f32 or bf16 in the memory of a device.
struct DeviceMemory {
  DeviceMemory(DeviceStream& of_stream, const Matrix<float>& values, ElementType type)
      : stream(of_stream),
        buffer(of_stream, std::ssize(values.all()) * element_bytes(type)),
        view(buffer.bytes(), type, values.rows(), values.cols()) {
    const std::vector<std::byte> bf16 = bf16_bytes(values.all());
    stream.upload(type == ElementType::kBf16 ? std::span(bf16) : std::as_bytes(values.all()),
                  buffer.data());
  }
  MatrixView<float> floats() const {
    return {reinterpret_cast<float*>(buffer.data()), view.rows(), view.cols()};
  }
  MatrixView<const float> read() const { return {floats().data(), view.rows(), view.cols()}; }
  Matrix<float> download() const {
    const PinnedBuffer pinned(stream, view.num_bytes());
    stream.copy_to_pinned(buffer.bytes(), pinned.data());
    stream.record()->synchronize();
    Matrix<float> to(view.rows(), view.cols());
    to_f32(pinned.data(), view.type(), to.all());
    return to;
  }

  DeviceStream& stream;
  DeviceBuffer buffer;
  RowsView view;
};

struct ExpertSizes {
  std::int64_t hidden = 8, intermediate = 8;
  std::vector<std::int64_t> rows_of_slot;
  std::int64_t first = 0;
};

inline ExpertSizes random_expert_sizes(std::mt19937_64& rng) {
  ExpertSizes sizes{.hidden = 8 + 8 * std::int64_t(uniform_below(3, rng)),
                    .intermediate = 8 + 8 * std::int64_t(uniform_below(2, rng)),
                    .rows_of_slot = std::vector<std::int64_t>(1 + uniform_below(5, rng)),
                    .first = std::int64_t(uniform_below(3, rng))};
  for (std::int64_t& rows : sizes.rows_of_slot) {
    rows = uniform_below(3, rng) == 0 ? 0 : std::int64_t(uniform_below(7, rng));
  }
  return sizes;
}

/// Experts, and rows that were received: those of the wire in bf16, the others in f32, by an index.
/// Rows before the first slot's and behind the last's are of no slot.
struct ExpertProblem {
  ExpertProblem(const ExpertSizes& sizes, std::uint32_t seed) : rng(seed) {
    offsets.push_back(sizes.first);
    for (const std::int64_t rows : sizes.rows_of_slot) offsets.push_back(offsets.back() + rows);
    for (std::size_t slot = 0; slot < sizes.rows_of_slot.size(); ++slot) {
      const auto add = [&](std::int64_t outputs, std::int64_t inputs) {
        const ElementType type = slot % 2 == 0 ? ElementType::kBf16 : ElementType::kF32;
        return weights.emplace_back(outputs, inputs, type, rng, 3).view;
      };
      experts.push_back({.gate = add(sizes.intermediate, sizes.hidden),
                         .up = add(sizes.intermediate, sizes.hidden),
                         .down = add(sizes.hidden, sizes.intermediate)});
      slots.push_back(sizes.rows_of_slot[slot] == 0 && slot % 2 == 1 ? nullptr : &experts.back());
    }
    const std::int64_t num_rows = offsets.back() + 2;
    wire = scaled(3, sizes.hidden), own = scaled(2, sizes.hidden);
    for (std::int64_t r = 0; r < num_rows; ++r) index.push_back(std::int32_t(rng() % 5));
    dout = scaled(num_rows, sizes.hidden);
  }

  /// Values whose magnitudes are below 2 / hidden.
  Matrix<float> scaled(std::int64_t rows, std::int64_t cols) {
    Matrix<float> m = random_matrix(rows, cols, rng);
    for (float& v : m.all()) v *= 2.0F / float(cols);
    return m;
  }
  std::int64_t num_rows() const { return std::ssize(index); }
  std::int64_t hidden() const { return wire.cols(); }
  /// Row r as the experts read it.
  std::vector<float> row(std::int64_t r) const {
    const std::int32_t i = index[std::size_t(r)];
    const auto from = i < 3 ? wire.row(i) : own.row(i - 3);
    std::vector<float> to(from.begin(), from.end());
    const auto as_stored = [](float value) { return to_float(to_bf16(value)); };
    if (i < 3) std::ranges::transform(to, to.begin(), as_stored);
    return to;
  }
  /// The rows of a slot, and the gradients of their outputs.
  Matrix<float> rows(std::size_t slot) const {
    Matrix<float> to(offsets[slot + 1] - offsets[slot], hidden());
    for (std::int64_t r = 0; r < to.rows(); ++r) {
      std::ranges::copy(row(offsets[slot] + r), to.row(r).begin());
    }
    return to;
  }
  Matrix<float> douts(std::size_t slot) const {
    Matrix<float> to(offsets[slot + 1] - offsets[slot], hidden());
    std::copy_n(dout.all().begin() + offsets[slot] * hidden(), to.all().size(), to.all().begin());
    return to;
  }

  std::mt19937 rng;
  std::vector<std::int64_t> offsets;
  std::deque<RandomWeights> weights;
  std::deque<ExpertWeights> experts;
  std::vector<const ExpertWeights*> slots;
  Matrix<float> wire, own, dout;
  std::vector<std::int32_t> index;
};

/// What a device gives for a problem. Rows of no slot keep kUntouched.
struct ExpertResults {
  static constexpr float kUntouched = 99;

  Matrix<float> out, drows;
  std::vector<ExactExpert> dweights;  // of all backward passes
};

/// One forward pass and `num_backward` backward passes.
inline ExpertResults run_experts(const ExpertProblem& problem, int num_backward,
                                 DeviceStream& stream, GroupedProducts& products,
                                 ExpertLauncher& launcher) {
  const Matrix<float> untouched(problem.num_rows(), problem.hidden(), ExpertResults::kUntouched);
  DeviceExperts experts(stream, products, launcher, problem.slots);
  const DeviceMemory wire(stream, problem.wire, ElementType::kBf16),
      own(stream, problem.own, ElementType::kF32), dout(stream, problem.dout, ElementType::kF32),
      out(stream, untouched, ElementType::kF32), drows(stream, untouched, ElementType::kF32);
  const DeviceBuffer index(stream, problem.num_rows() * 4);
  stream.upload(std::as_bytes(std::span(problem.index)), index.data());
  const GatheredRows rows(
      wire.view, {reinterpret_cast<const std::int32_t*>(index.data()), problem.index.size()},
      own.view);
  ExpertResults results;
  for (const ExpertWeights* expert : problem.slots) {
    results.dweights.push_back(expert == nullptr ? ExactExpert{}
                                                 : zero_gradients(exact_expert(*expert)));
  }
  experts.forward(problem.offsets, rows, out.floats());
  for (int i = 0; i + 1 < num_backward; ++i) {
    experts.backward_on_device(problem.offsets, rows, dout.read(), drows.floats());
  }
  if (num_backward > 0) {
    experts.backward(problem.offsets, rows, dout.read(), drows.floats(), results.dweights);
    EXPECT_EQ(experts.gradients(0).down, nullptr);
  }
  results.out = out.download(), results.drows = drows.download();
  return results;
}

inline ExactExpert magnitudes_of(ExactExpert expert) {
  for (Matrix<double>* m : {&expert.gate, &expert.up, &expert.down}) {
    for (double& v : m->all()) v = std::abs(v);
  }
  return expert;
}

/// Let v = 2^-8, by which rounding to bf16 changes a value, and M the same quantity computed from
/// the magnitudes of all numbers. |x| < 2 / hidden and |w| < 1, so the magnitude of g is below 2.
///   g and u: x' is off by v, rounding adds v: 2 v M.
///   silu: its slope is at most 1.1, and silu(M) >= M / 2: off by 2 x 1.1 x 2 v = 4.4 v M.
///   h: 4.4 v + 2 v + v for rounding; y: v more: 8.4 v M.
///   dh: 2 v. du as h with dh for u. dg: silu' is at most 1.1, and at least 1/2 at the magnitude,
///   so each of dh, u and rounding counts 2.2 times: 11 v; its slope is at most 1/2, which adds
///   (1/2 x 2 v x 2) / (1/2) = 4 v.
///   dx: 15 v, and 2.2 v for rounding. Gradients of weights: 15 v, and 2.2 v of x' or dy'.
/// So 17.2 v bounds all. Products of two errors are below 0.7 v, and sums of n terms in f32, in any
/// order, add n 2^-24, which is below 0.1 v up to n = 6000.
inline constexpr double kExpertBound = 18 * 0x1p-8;

template <class Got, class Expected>
void expect_near_exact(const char* what, const Got& got, const Expected& expected,
                       const Expected& magnitudes) {
  ASSERT_EQ(std::ssize(got), std::ssize(expected));
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(double(got[i]), expected[i], kExpertBound * magnitudes[i])
        << what << ", value " << i;
  }
}

/// Compares results with one backward pass with the exact experts.
inline void expect_near_exact_experts(const ExpertProblem& problem, const ExpertResults& got) {
  const auto hidden = std::size_t(problem.hidden());
  for (std::size_t slot = 0; slot < problem.slots.size(); ++slot) {
    if (problem.slots[slot] == nullptr) continue;
    const ExactExpert expert = exact_expert(*problem.slots[slot]);
    const ExactExpert of_magnitudes = magnitudes_of(expert);
    ExactExpert dweights = zero_gradients(expert), dweights_m = dweights;
    for (std::int64_t r = problem.offsets[slot]; r < problem.offsets[slot + 1]; ++r) {
      const std::vector<float> row = problem.row(r);
      std::vector<double> x(row.begin(), row.end()), y(hidden), y_m(hidden), dx(hidden),
          dx_m(hidden), dy(problem.dout.row(r).begin(), problem.dout.row(r).end());
      exact_forward(expert, x, y);
      exact_backward(expert, x, dy, dx, dweights);
      for (auto* const values : {&x, &dy}) {
        for (double& v : *values) v = std::abs(v);
      }
      exact_forward(of_magnitudes, x, y_m);
      exact_backward(of_magnitudes, x, dy, dx_m, dweights_m);
      expect_near_exact("out", got.out.row(r), y, y_m);
      expect_near_exact("drows", got.drows.row(r), dx, dx_m);
    }
    for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
      expect_near_exact("dweights", (got.dweights[slot].*part).all(), (dweights.*part).all(),
                        (dweights_m.*part).all());
    }
  }
}

}  // namespace c2r::testing
