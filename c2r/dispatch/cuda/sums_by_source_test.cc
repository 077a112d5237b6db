// Sums by source and their gradients have the bits of loops, with and without vectors, in each
// type.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "c2r/dispatch/cuda/sums_by_source-inl.h"
#include "c2r/dispatch/testing_internal.h"

namespace c2r {
namespace {

constexpr std::int64_t kNumSources = 4;
const std::vector<std::int64_t> kSourceOfRow = {3, 0, 3, 3, 1, 0, 3};  // source 2 has no rows
const std::vector<std::int64_t> kRowsBySource = {1, 5, 4, 0, 2, 3, 6};
const std::vector<std::int64_t> kSourceOffsets = {0, 2, 3, 3, 7};
constexpr std::int64_t kNumStored = 7;

// Rows in a type, in memory that is aligned for vectors, and what they are in f32.
struct TypedRows {
  TypedRows(std::int64_t num_rows, std::int64_t row_width, ElementType row_type)
      : width(row_width),
        type(row_type),
        floats(static_cast<std::size_t>(num_rows * width)),
        stored(static_cast<std::size_t>(num_rows * width * element_bytes(type) / 16 + 1)) {}
  TypedRows(std::int64_t num_rows, std::int64_t row_width, ElementType row_type,
            std::mt19937_64& rng)
      : TypedRows(num_rows, row_width, row_type) {
    for (float& v : floats) v = testing::random_value(rng);
    from_f32(floats, type, bytes());
    load();
  }

  std::byte* bytes() { return reinterpret_cast<std::byte*>(stored.data()); }
  void load() { to_f32(bytes(), type, floats); }
  float& at(std::int64_t row, std::int64_t c) {
    return floats[static_cast<std::size_t>(row * width + c)];
  }

  std::int64_t width;
  ElementType type;
  std::vector<float> floats;
  std::vector<SixteenBytes> stored;
};

float rounded_to(ElementType type, float value) {
  std::byte stored[4];
  store_element(stored, type, 0, value);
  return load_element(stored, type, 0);
}

template <int kVector>
void expect_sums_of_a_loop(ElementType type, std::int64_t width, std::mt19937_64& rng) {
  TypedRows rows(kNumStored, width, type, rng), sums(kNumSources, width, type);
  std::vector<float> weights(kNumStored);
  for (float& v : weights) v = testing::random_value(rng);
  const SumBySource kernel{.rows = rows.bytes(),
                           .weights = weights.data(),
                           .order = kRowsBySource.data(),
                           .offsets = kSourceOffsets.data(),
                           .sums = sums.bytes(),
                           .num_sources = kNumSources,
                           .width = width,
                           .type = type};
  for (std::int64_t thread = 0; thread < 3; ++thread) {
    for (std::int64_t source = 0; source < kNumSources; ++source) {
      kernel.run<kVector>(source, {.first = thread, .step = 3});
    }
  }
  sums.load();
  for (std::int64_t source = 0; source < kNumSources; ++source) {
    for (std::int64_t c = 0; c < width; ++c) {
      float sum = 0;
      for (std::int64_t row = 0; row < kNumStored; ++row) {
        const auto at = static_cast<std::size_t>(row);
        if (kSourceOfRow[at] == source) sum += weights[at] * rows.at(row, c);
      }
      EXPECT_EQ(sums.at(source, c), rounded_to(type, sum))
          << "source " << source << ", column " << c;
    }
  }
}

// Each of `width` products and additions is rounded to f32 once.
template <int kVector>
void expect_gradients_of_a_loop(ElementType type, std::int64_t width, std::mt19937_64& rng) {
  TypedRows rows(kNumStored, width, type, rng), dsums(kNumSources, width, type, rng),
      drows(kNumStored, width, type);
  std::vector<float> weights(kNumStored), dweights(kNumStored);
  for (float& v : weights) v = testing::random_value(rng);
  const SumBySourceGradients kernel{.dsums = dsums.bytes(),
                                    .rows = rows.bytes(),
                                    .weights = weights.data(),
                                    .index = kSourceOfRow.data(),
                                    .drows = drows.bytes(),
                                    .dweights = dweights.data(),
                                    .num_rows = kNumStored,
                                    .width = width,
                                    .type = type};
  for (std::int64_t row = 0; row < kNumStored; ++row) kernel.run_in_warp<kVector>(HostWarp{}, row);
  drows.load();
  for (std::int64_t row = 0; row < kNumStored; ++row) {
    const auto at = static_cast<std::size_t>(row);
    double sum = 0, magnitudes = 0;
    for (std::int64_t c = 0; c < width; ++c) {
      const float dsum = dsums.at(kSourceOfRow[at], c);
      EXPECT_EQ(drows.at(row, c), rounded_to(type, weights[at] * dsum));
      sum += double{dsum} * double{rows.at(row, c)};
      magnitudes += std::abs(double{dsum} * double{rows.at(row, c)});
    }
    EXPECT_NEAR(dweights[at], sum, double(width) * 0x1p-24 * magnitudes);
  }
}

TEST(SumBySource, HasTheBitsOfALoop) {
  std::mt19937_64 rng(1);
  for (const auto type : {ElementType::kF32, ElementType::kBf16, ElementType::kF16}) {
    SCOPED_TRACE(name_of(type));
    for (const std::int64_t width : {8, 264}) expect_sums_of_a_loop<kRowVector>(type, width, rng);
    for (const std::int64_t width : {1, 8, 37}) expect_sums_of_a_loop<1>(type, width, rng);
  }
}

TEST(SumBySource, HasTheGradientsOfALoop) {
  std::mt19937_64 rng(2);
  for (const auto type : {ElementType::kF32, ElementType::kBf16, ElementType::kF16}) {
    SCOPED_TRACE(name_of(type));
    for (const std::int64_t width : {8, 264, 520}) {
      expect_gradients_of_a_loop<kRowVector>(type, width, rng);
    }
    for (const std::int64_t width : {1, 8, 37, 300}) {
      expect_gradients_of_a_loop<1>(type, width, rng);
    }
  }
}

}  // namespace
}  // namespace c2r
