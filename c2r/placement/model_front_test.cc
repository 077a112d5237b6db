// Tests that the Pareto front of a model is made of the best mixes of its layers.
#include "c2r/placement/model_front.h"

#include <gtest/gtest.h>

#include <random>

#include "c2r/core/error.h"
#include "c2r/core/rng.h"

namespace c2r {
namespace {

using Front = std::vector<OptimizedPlacement>;

Front front_of(std::initializer_list<std::pair<double, double>> points) {
  Front front;
  for (const auto& [copies, imbalance] : points) {
    front.push_back({.copy_cost = copies, .imbalance = imbalance});
  }
  return front;
}

// The first layer buys balance at 1, then 10 copies a unit, the second at 2. The point (1.9, 1.9)
// of the first lies above the line between its neighbours.
TEST(ModelFront, BuysBalanceWhereItIsCheapest) {
  const std::vector<Front> layers = {front_of({{1, 2}, {1.9, 1.9}, {2, 1}}),
                                     front_of({{1, 3}, {3, 2}})};
  const auto points = model_front(layers, 10);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[0].chosen, (std::vector<std::size_t>{0, 0}));
  EXPECT_EQ(points[1].chosen, (std::vector<std::size_t>{2, 0}));
  EXPECT_EQ(points[2].chosen, (std::vector<std::size_t>{2, 1}));
  EXPECT_NEAR(points[1].mean_copy_cost, 1.5, 1e-12);
  EXPECT_NEAR(points[1].mean_imbalance, 2, 1e-12);
  EXPECT_EQ(model_front(layers, 2).size(), 2u);
  EXPECT_EQ(model_front(layers, 2).back().chosen, points.back().chosen);
}

Front random_front(std::mt19937_64& rng) {
  Front front;
  double copies = 1, imbalance = 3;
  const auto size = 1 + uniform_below(4, rng);
  for (std::uint64_t point = 0; point < size; ++point) {
    front.push_back({.copy_cost = copies, .imbalance = imbalance});
    copies += 0.1 * double(1 + uniform_below(10, rng));
    imbalance -= 0.05 * double(1 + uniform_below(10, rng));
  }
  return front;
}

// All mixes of three layers, by the definition.
double least_of_all_mixes(const std::vector<Front>& layers, double weight) {
  double least = 1e9;
  for (const auto& a : layers[0]) {
    for (const auto& b : layers[1]) {
      for (const auto& c : layers[2]) {
        const double copies = a.copy_cost + b.copy_cost + c.copy_cost;
        least = std::min(least, copies + weight * (a.imbalance + b.imbalance + c.imbalance));
      }
    }
  }
  return least / 3;
}

TEST(ModelFront, HasTheBestMixForEveryWeight) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const std::vector<Front> layers = {random_front(rng), random_front(rng), random_front(rng)};
    const auto points = model_front(layers, 100);
    for (const double weight : {0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0}) {
      double least = 1e9;
      for (const ModelFrontPoint& point : points) {
        least = std::min(least, point.mean_copy_cost + weight * point.mean_imbalance);
      }
      // Sums of some ten numbers below 300 in double.
      EXPECT_NEAR(least, least_of_all_mixes(layers, weight), 1e-11);
    }
    for (const ModelFrontPoint& point : points) {
      double copies = 0, imbalance = 0;
      for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        copies += layers[layer][point.chosen[layer]].copy_cost / 3;
        imbalance += layers[layer][point.chosen[layer]].imbalance / 3;
      }
      EXPECT_NEAR(point.mean_copy_cost, copies, 1e-12);
      EXPECT_NEAR(point.mean_imbalance, imbalance, 1e-12);
    }
  }
}

TEST(ModelFront, KeepsBothEndsAndAsManyPointsAsAskedFor) {
  std::mt19937_64 rng(1);
  std::vector<Front> layers;
  for (int layer = 0; layer < 20; ++layer) layers.push_back(random_front(rng));
  const auto all = model_front(layers, 1000), some = model_front(layers, 5);
  ASSERT_GT(all.size(), 10u);
  ASSERT_EQ(some.size(), 5u);
  EXPECT_EQ(some.front().chosen, all.front().chosen);
  EXPECT_EQ(some.back().chosen, all.back().chosen);
  EXPECT_THROW(model_front(layers, 1), Error);
  layers[3].clear();
  EXPECT_THROW(model_front(layers, 5), Error);
}

}  // namespace
}  // namespace c2r
