// Experts on an NVIDIA GPU: the kernels give the bits of their bodies on the host, and the experts,
// forward and backward, are near the exact ones.
#include <gtest/gtest.h>

#include <random>

#include "c2r/experts/cublas/cublas_products.h"
#include "c2r/experts/cuda/cuda_expert_launcher.h"
#include "c2r/experts/cuda/device_experts_testing.h"
#include "c2r/experts/cuda/expert_kernels-inl.h"
#include "tests/gpu/on_gpu.h"

namespace c2r {
namespace {

// Random bf16 from -16 to 16, which takes sigmoid through all of its range.
std::vector<std::byte> random_bf16(std::int64_t num_values, std::mt19937& rng) {
  std::vector<float> values(static_cast<std::size_t>(num_values));
  for (float& v : values) v = 16 * testing::random_number(rng);
  return testing::bf16_bytes(values);
}

// Runs a kernel on the GPU and its body on the host, on copies of the same two arrays.
template <class MakeKernel>
void expect_same_bits(const char* name, std::vector<std::byte> first, std::vector<std::byte> second,
                      DeviceStream& stream, ExpertLauncher& launcher, const MakeKernel& make) {
  const DeviceBuffer first_on_device(stream, std::ssize(first)),
      second_on_device(stream, std::ssize(second));
  stream.upload(first, first_on_device.data());
  stream.upload(second, second_on_device.data());
  launcher.launch({make(first_on_device.data(), second_on_device.data())}, stream);
  const auto body = make(first.data(), second.data());
  for (std::int64_t block = 0; block < body.num_blocks(); ++block) body.run(block, {});
  EXPECT_EQ(download<std::byte>(stream, first_on_device), first) << name;
  EXPECT_EQ(download<std::byte>(stream, second_on_device), second) << name;
}

TEST_F(OnGpu, ComputesBetweenProductsAsTheBodiesOnTheHost) {
  const auto stream = make_cuda_stream(0);
  const auto launcher = make_cuda_expert_launcher();
  std::mt19937 rng(5);
  constexpr std::int64_t kRows = 77;
  for (const std::int64_t cols : {8, 264, 2056, 14336}) {
    const std::vector<std::byte> wide = random_bf16(2 * kRows * cols, rng),
                                 narrow = random_bf16(kRows * cols, rng),
                                 floats(std::size_t(4 * kRows * cols));
    expect_same_bits("Swiglu", wide, narrow, *stream, *launcher, [&](auto* in, auto* out) {
      return Swiglu{.gate_up = in, .num_rows = kRows, .intermediate = cols, .inner = out};
    });
    expect_same_bits("SwigluBackward", wide, narrow, *stream, *launcher, [&](auto* in, auto* out) {
      return SwigluBackward{.gate_up = in, .num_rows = kRows, .intermediate = cols, .inner = out};
    });
    expect_same_bits("WidenRows", narrow, floats, *stream, *launcher, [&](auto* in, auto* out) {
      return WidenRows{.packed = in, .num_rows = kRows, .cols = cols, .rows = out};
    });
    // The bytes of `wide` as f32: some are not finite, and are packed like all others.
    expect_same_bits("PackRows", wide, narrow, *stream, *launcher, [&](auto* in, auto* out) {
      return PackRows{.from = {.data = in, .num_rows = kRows, .stride = cols},
                      .num_rows = kRows,
                      .cols = cols,
                      .packed = out};
    });
  }
}

TEST_F(OnGpu, ComputesExpertsNearTheExactOnes) {
  const auto stream = make_cuda_stream(0);
  const auto launcher = make_cuda_expert_launcher();
  const auto products = make_cublas_products();
  std::mt19937_64 rng(6);
  std::vector<testing::ExpertSizes> all{
      {.rows_of_slot = {0, 0, 0}, .first = 1},
      {.hidden = 64, .intermediate = 40, .rows_of_slot = {0, 300, 0}},
      {.hidden = 512, .intermediate = 256, .rows_of_slot = {70, 0, 33, 1, 129}, .first = 3}};
  for (int i = 0; i < 20; ++i) all.push_back(testing::random_expert_sizes(rng));
  for (std::uint32_t seed = 0; seed < all.size(); ++seed) {
    SCOPED_TRACE(fmt::format("seed {}, hidden {}, intermediate {}", seed, all[seed].hidden,
                             all[seed].intermediate));
    const testing::ExpertProblem problem(all[seed], seed);
    testing::expect_near_exact_experts(
        problem, testing::run_experts(problem, 1, *stream, *products, *launcher));
  }
}

}  // namespace
}  // namespace c2r
