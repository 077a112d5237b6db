// Routing that looks like a trained router's, for tests and benchmarks: skewed and clustered.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/matrix.h"
#include "c2r/core/rng.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

struct ClusteredRouting {
  std::int32_t num_experts = 0, top_k = 0;
  std::int64_t num_tokens = 0;
  std::int32_t num_topics = 0;
  // Logits are topic_strength x a topic's own preferences + skew x the expert's popularity + noise,
  // all of the scale of one Gumbel draw.
  double topic_strength = 1.5, skew = 0.5;
  std::uint64_t seed = 0;
};

/// Tokens draw a topic (the first ones more often: 1 / sqrt(rank)), then the top_k experts of the
/// sum above: a sample without repeats from the topic's distribution. Every expert's place in the
/// numbering is random, so that a contiguous placement knows nothing.
inline TokenSets clustered_token_sets(const ClusteredRouting& routing) {
  std::mt19937_64 rng(routing.seed);
  const auto gumbel = [&] {
    return -std::log(-std::log((static_cast<double>(rng() >> 11) + 0.5) * 0x1p-53));
  };
  Matrix<double> preference(routing.num_topics, routing.num_experts);
  std::vector<double> popularity(static_cast<std::size_t>(routing.num_experts));
  for (double& p : popularity) p = routing.skew * gumbel();
  for (std::int64_t topic = 0; topic < routing.num_topics; ++topic) {
    for (std::int64_t e = 0; e < routing.num_experts; ++e) {
      preference(topic, e) = routing.topic_strength * gumbel() + at(popularity, e);
    }
  }
  std::vector<double> topic_until(static_cast<std::size_t>(routing.num_topics));
  double total = 0;
  for (std::size_t topic = 0; topic < topic_until.size(); ++topic) {
    topic_until[topic] = total += 1 / std::sqrt(1.0 + static_cast<double>(topic));
  }

  TokenSetBuilder builder(routing.num_experts, routing.top_k);
  Matrix<ExpertId> token(1, routing.top_k);
  std::vector<std::pair<double, std::int32_t>> scores(popularity.size());
  for (std::int64_t t = 0; t < routing.num_tokens; ++t) {
    const double draw = total * (static_cast<double>(rng() >> 11) * 0x1p-53);
    const auto topic = std::ranges::upper_bound(topic_until, draw) - topic_until.begin();
    for (std::int32_t e = 0; e < routing.num_experts; ++e) {
      at(scores, e) = {-(preference(topic, e) + gumbel()), e};
    }
    std::ranges::partial_sort(scores, scores.begin() + routing.top_k);
    for (std::int32_t k = 0; k < routing.top_k; ++k) {
      token(0, k) = ExpertId{at(scores, k).second};
    }
    builder.add(token);
  }
  return builder.finish();
}

}  // namespace c2r
