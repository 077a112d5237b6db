// Experts on a device that runs late: the kernels' bodies and products by definition give the
// rounded reference bit for bit, and the exact experts within a bound.
#include "c2r/experts/cuda/device_experts.h"

#include <gtest/gtest.h>

#include <random>

#include "c2r/core/testing.h"
#include "c2r/experts/cuda/device_experts_testing.h"
#include "c2r/experts/cuda/host_experts_testing.h"

namespace c2r {
namespace {

using testing::bf16_bytes;
using testing::DeviceMemory;
using testing::error_of;
using testing::ExpertProblem;
using testing::ExpertResults;
using testing::FakeDevice;
using testing::FakeStream;
using testing::HostExpertLauncher;
using testing::HostProducts;
using testing::RandomWeights;
using testing::RoundedExpert;
using testing::RoundedGradients;

// (a b)^T by hand: a = [1 2; 3 4; 5 6] (3 x 2), b = [7 8; 9 10] in each of the three forms.
TEST(BlasProduct, SaysARowMajorProductInColumnMajorWords) {
  const auto product_of = [](ProductKind kind, const std::vector<float>& a,
                             const std::vector<float>& b) {
    FakeDevice device;
    FakeStream stream(device);
    HostProducts products;
    const std::vector<std::byte> a_bytes = bf16_bytes(a), b_bytes = bf16_bytes(b);
    const ElementType type =
        kind == ProductKind::kTransposedTimes ? ElementType::kF32 : ElementType::kBf16;
    std::vector<std::byte> out(6 * 4);
    const DeviceProduct product{
        .a = a_bytes.data(), .b = b_bytes.data(), .out = out.data(), .m = 3, .n = 2, .k = 2};
    products.run(kind, {&product, 1}, stream);
    stream.synchronize();
    std::vector<float> values(6);
    to_f32(out.data(), type, values);
    return values;
  };
  const std::vector<float> expected{25, 28, 57, 64, 89, 100};
  EXPECT_EQ(product_of(ProductKind::kTimes, {1, 2, 3, 4, 5, 6}, {7, 8, 9, 10}), expected);
  EXPECT_EQ(product_of(ProductKind::kTimesTransposed, {1, 2, 3, 4, 5, 6}, {7, 9, 8, 10}), expected);
  EXPECT_EQ(product_of(ProductKind::kTransposedTimes, {1, 3, 5, 2, 4, 6}, {7, 8, 9, 10}), expected);
}

// gate = 0, so s = 1/2: h = 0, du = 0, dg = dh u / 2. And gate = 100, so s = 1: h = 100 u, du = 100
// dh, dg = dh u.
TEST(SwigluKernels, DoAWorkedExample) {
  std::vector<float> gate_up(32), dh(16, 0.5F);
  for (std::size_t c = 0; c < 16; ++c) {
    gate_up[c] = c == 3 ? 100.0F : 0.0F;
    gate_up[16 + c] = float(c) - 4;
  }
  alignas(16) std::byte outer[64], inner[32];
  from_f32(gate_up, ElementType::kBf16, outer);
  Swiglu{.gate_up = outer, .num_rows = 1, .intermediate = 16, .inner = inner}.run(0, {});
  std::vector<float> h(16), gradients(32);
  to_f32(inner, ElementType::kBf16, h);
  from_f32(dh, ElementType::kBf16, inner);
  SwigluBackward{.gate_up = outer, .num_rows = 1, .intermediate = 16, .inner = inner}.run(0, {});
  to_f32(outer, ElementType::kBf16, gradients);
  std::vector<float> h_again(16);
  to_f32(inner, ElementType::kBf16, h_again);
  EXPECT_EQ(h, h_again);
  for (std::size_t c = 0; c < 16; ++c) {
    const float up = float(c) - 4;
    EXPECT_EQ(h[c], c == 3 ? -100.0F : 0.0F);
    EXPECT_EQ(gradients[c], c == 3 ? 0.5F * up : 0.25F * up);
    EXPECT_EQ(gradients[16 + c], c == 3 ? 50.0F : 0.0F);
  }
}

// On a fake device that runs late.
ExpertResults run_late(const ExpertProblem& problem, int num_backward, int ignored_wait = -1,
                       int* num_waits = nullptr) {
  FakeDevice device;
  device.ignore_wait(ignored_wait);
  FakeStream stream(device);
  HostProducts products;
  HostExpertLauncher launcher;
  const ExpertResults results =
      testing::run_experts(problem, num_backward, stream, products, launcher);
  stream.synchronize();
  if (num_waits != nullptr) *num_waits = device.num_waits();
  return results;
}

void expect_rounded_reference(const ExpertProblem& problem, int num_backward) {
  const ExpertResults got = run_late(problem, num_backward);
  Matrix<float> out(problem.num_rows(), problem.hidden(), ExpertResults::kUntouched), drows = out;
  for (std::size_t slot = 0; slot < problem.slots.size(); ++slot) {
    if (problem.slots[slot] == nullptr) continue;
    const RoundedExpert expert(*problem.slots[slot]);
    RoundedGradients gradients = expert.no_gradients();
    for (int i = 0; i < num_backward; ++i) {
      const Matrix<float> dx = expert.backward(problem.rows(slot), problem.douts(slot), gradients);
      std::ranges::copy(dx.all(), drows.all().begin() + problem.offsets[slot] * drows.cols());
    }
    for (std::int64_t r = problem.offsets[slot]; r < problem.offsets[slot + 1]; ++r) {
      std::ranges::copy(expert.forward(problem.row(r)), out.row(r).begin());
    }
    EXPECT_TRUE(std::ranges::equal(got.dweights[slot].gate.all(), gradients.gate.all()));
    EXPECT_TRUE(std::ranges::equal(got.dweights[slot].up.all(), gradients.up.all()));
    EXPECT_TRUE(std::ranges::equal(got.dweights[slot].down.all(), gradients.down.all()));
  }
  EXPECT_EQ(got.out, out);
  EXPECT_EQ(got.drows, drows);
}

TEST(DeviceExperts, GivesTheRoundedReferenceBitForBit) {
  std::mt19937_64 rng(11);
  for (std::uint32_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    expect_rounded_reference(ExpertProblem(testing::random_expert_sizes(rng), seed),
                             1 + int(seed % 3));
  }
}

TEST(DeviceExperts, ComputesNoRowsAndOneHotExpert) {
  expect_rounded_reference(ExpertProblem({.rows_of_slot = {0, 0, 0}, .first = 2}, 1), 2);
  expect_rounded_reference(ExpertProblem({.rows_of_slot = {0, 0, 23, 0}}, 2), 2);
}

TEST(DeviceExperts, IsNearTheExactExperts) {
  std::mt19937_64 rng(12);
  for (std::uint32_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const ExpertProblem problem(testing::random_expert_sizes(rng), seed);
    testing::expect_near_exact_experts(problem, run_late(problem, 1));
  }
}

// The host waits for the gradients of each slot that has some, then for the outputs and the
// gradients of rows.
TEST(DeviceExperts, ShowsEachWaitThatIsLeftOut) {
  const ExpertProblem problem({.rows_of_slot = {2, 0, 3}}, 5);
  int num_waits = 0;
  const ExpertResults right = run_late(problem, 1, -1, &num_waits);
  EXPECT_EQ(num_waits, 4);
  for (int wait = 0; wait < num_waits; ++wait) {
    const ExpertResults broken = run_late(problem, 1, wait);
    EXPECT_FALSE(broken.out == right.out && broken.drows == right.drows &&
                 broken.dweights[0].down == right.dweights[0].down &&
                 broken.dweights[2].down == right.dweights[2].down)
        << "without wait " << wait;
  }
}

TEST(DeviceExperts, RefusesWhatADeviceCannotCompute) {
  FakeDevice device;
  FakeStream stream(device);
  HostProducts products;
  HostExpertLauncher launcher;
  std::mt19937 rng(3);
  std::deque<RandomWeights> weights;
  const auto expert = [&](std::int64_t hidden, std::int64_t intermediate) {
    const auto add = [&](std::int64_t outputs, std::int64_t inputs) {
      return weights.emplace_back(outputs, inputs, ElementType::kBf16, rng).view;
    };
    return ExpertWeights{.gate = add(intermediate, hidden),
                         .up = add(intermediate, hidden),
                         .down = add(hidden, intermediate)};
  };
  const ExpertWeights small = expert(8, 8), other = expert(8, 16), odd = expert(12, 8);
  ExpertWeights broken = small;
  broken.down = other.down;
  const auto make = [&](std::vector<const ExpertWeights*> slots) {
    return DeviceExperts(stream, products, launcher, slots);
  };
  EXPECT_EQ(error_of([&] {
              make({&small, nullptr, &other});
            }),
            "a device computes experts of one size, but one is 8 x 8 and another 8 x 16; use "
            "CpuExperts");
  EXPECT_EQ(error_of([&] { make({&odd}); }),
            "a device computes experts whose sizes are multiples of 8, but hidden is 12 and "
            "intermediate 8; use CpuExperts");
  EXPECT_EQ(error_of([&] { make({&broken}); }),
            "an expert's gate is [8, 8], its up [8, 8] and its down [8, 16]");

  const std::vector<const ExpertWeights*> slots{&small, nullptr};
  DeviceExperts experts(stream, products, launcher, slots);
  const DeviceMemory rows(stream, Matrix<float>(4, 8), ElementType::kF32);
  const auto forward = [&](const std::vector<std::int64_t>& offsets, MatrixView<float> in) {
    return error_of([&] { experts.forward(offsets, in, rows.floats()); });
  };
  EXPECT_EQ(forward({0, 4}, rows.floats()),
            "there are 2 slots, but 2 offsets; give one more than slots");
  EXPECT_EQ(forward({0, 2, 4}, rows.floats()), "slot 1 has no expert, but 2 rows");
  EXPECT_EQ(forward({0, 5, 5}, rows.floats()),
            "experts of hidden size 8 cannot compute rows 0 to 5 of rows [4, 8]");
  EXPECT_EQ(forward({0, 2, 2}, {rows.floats().data() + 1, 3, 8}),
            "a device computes rows that are aligned to 16 bytes, but some are not");
  std::vector<ExactExpert> gradients(2);
  EXPECT_EQ(error_of([&] {
              experts.backward(std::vector<std::int64_t>{0, 1, 1}, rows.floats(), rows.read(),
                               rows.floats(), gradients);
            }),
            "slot 0 has an expert of hidden size 8 and intermediate size 8, but the gradients have "
            "another shape; use zero_gradients()");
  gradients.resize(1);
  EXPECT_EQ(error_of([&] { experts.take_gradients(gradients); }),
            "there are 2 slots, but gradients for 1");
}

}  // namespace
}  // namespace c2r
