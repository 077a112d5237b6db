// Copies token sets into compact rows and lists the sets of each expert.
#include "c2r/placement/search/set_index.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

std::vector<std::int64_t> expert_loads(const TokenSets& sets) {
  std::vector<std::int64_t> loads(static_cast<std::size_t>(sets.num_experts));
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    for (const ExpertId e : sets.experts.row(set)) {
      if (e != kNoExpert) at(loads, e) += at(sets.multiplicity, set);
    }
  }
  return loads;
}

// The least distance between drawn tokens with which at most `num_sets` are expected to be drawn:
// a set of w tokens is drawn with the probability min(1, w / distance).
std::int64_t distance_for(std::span<const std::int64_t> weights, std::int64_t num_sets) {
  const auto expected = [&](std::int64_t distance) {
    double sum = 0;
    for (const std::int64_t w : weights) {
      sum += std::min(1.0, static_cast<double>(w) / static_cast<double>(distance));
    }
    return sum;
  };
  const auto wanted = static_cast<double>(num_sets);
  if (expected(1) <= wanted) return 1;
  std::int64_t low = 1, high = 2;
  while (expected(high) > wanted && high < INT64_MAX / 4) low = high, high *= 2;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (expected(middle) > wanted ? low : high) = middle;
  }
  return high;
}

}  // namespace

SetIndex::SetIndex(const TokenSets& sets)
    : num_experts_(sets.num_experts),
      width_(static_cast<std::size_t>(sets.top_k())),
      experts_(static_cast<std::size_t>(sets.num_sets() * sets.top_k())),
      sizes_(static_cast<std::size_t>(sets.num_sets())),
      weights_(sets.multiplicity),
      loads_(expert_loads(sets)) {
  C2R_REQUIRE(sets.num_experts <= 1 << 16, kUnsupported,
              "placements can be optimized up to {} experts or slots, not {}", 1 << 16,
              sets.num_experts);
  C2R_ASSERT(sets.top_k() <= kMaxTopK);
  total_weight_ = std::accumulate(weights_.begin(), weights_.end(), std::int64_t{0});
  num_choices_ = std::accumulate(loads_.begin(), loads_.end(), std::int64_t{0});
  for (std::size_t set = 0; set < weights_.size(); ++set) {
    for (const ExpertId e : sets.experts.row(static_cast<std::int64_t>(set))) {
      if (e == kNoExpert) continue;
      experts_[set * width_ + sizes_[set]++] = static_cast<std::uint16_t>(e);
    }
  }
  list_sets_of_experts();
  if (sets.multiplicity_in.cols() > 1) weigh_scenarios(sets);
}

// Sums are rounded, not weights, which are often 1: loads of many sets are then off by less than
// the root of their number.
void SetIndex::weigh_scenarios(const TokenSets& sets) {
  num_scenarios_ = static_cast<std::int32_t>(sets.multiplicity_in.cols());
  scenario_weights_.resize(weights_.size() * std::size_t(num_scenarios_));
  scenario_loads_.resize(loads_.size() * std::size_t(num_scenarios_));
  for (std::int64_t scenario = 0; scenario < num_scenarios_; ++scenario) {
    std::int64_t choices = 0, tokens = 0;
    for (std::int64_t set = 0; set < num_sets(); ++set) {
      choices += sets.multiplicity_in(set, scenario) * std::ssize(experts(set));
    }
    const double scale = static_cast<double>(num_choices_) / static_cast<double>(choices);
    const auto scaled = [&] { return std::llround(scale * static_cast<double>(tokens)); };
    for (std::int64_t set = 0; set < num_sets(); ++set) {
      const std::int64_t before = scaled();
      tokens += sets.multiplicity_in(set, scenario);
      at(scenario_weights_, set * num_scenarios_ + scenario) = scaled() - before;
      for (const std::uint16_t e : experts(set)) {
        at(scenario_loads_, std::int64_t{e} * num_scenarios_ + scenario) += scaled() - before;
      }
    }
  }
}

void SetIndex::list_sets_of_experts() {
  offsets_.assign(static_cast<std::size_t>(num_experts_) + 1, 0);
  for (std::int64_t set = 0; set < num_sets(); ++set) {
    for (const std::uint16_t e : experts(set)) ++offsets_[std::size_t{e} + 1];
  }
  std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  set_ids_.resize(offsets_.back());
  auto next = offsets_;
  for (std::int64_t set = 0; set < num_sets(); ++set) {
    for (const std::uint16_t e : experts(set)) set_ids_[next[e]++] = static_cast<std::int32_t>(set);
  }
}

SetIndex SetIndex::sample(std::int64_t num_sets, std::uint64_t seed) const {
  const std::int64_t distance = distance_for(weights_, num_sets);
  if (distance <= 1) return *this;
  SetIndex drawn;
  drawn.num_experts_ = num_experts_;
  drawn.width_ = width_;
  drawn.total_weight_ = total_weight_;
  drawn.num_choices_ = num_choices_;
  drawn.loads_ = loads_;
  drawn.num_scenarios_ = num_scenarios_;
  drawn.scenario_loads_ = scenario_loads_;
  // Token t of the tokens in the order of the sets is drawn if t + shift is a multiple of distance.
  const auto shift =
      static_cast<std::int64_t>(mix_bits(seed) % static_cast<std::uint64_t>(distance));
  std::int64_t tokens_before = shift;
  for (std::size_t set = 0; set < weights_.size(); ++set) {
    const std::int64_t tokens_until = tokens_before + weights_[set];
    const std::int64_t num_drawn = tokens_until / distance - tokens_before / distance;
    tokens_before = tokens_until;
    if (num_drawn == 0) continue;
    const auto row = std::span(experts_).subspan(set * width_, width_);
    drawn.experts_.insert(drawn.experts_.end(), row.begin(), row.end());
    drawn.sizes_.push_back(sizes_[set]);
    drawn.weights_.push_back(num_drawn * distance);
    if (num_scenarios_ == 1) continue;
    const double growth =
        static_cast<double>(num_drawn * distance) / static_cast<double>(weights_[set]);
    for (const std::int64_t weight : scenario_weights(std::int64_t(set))) {
      drawn.scenario_weights_.push_back(std::llround(growth * static_cast<double>(weight)));
    }
  }
  drawn.list_sets_of_experts();
  return drawn;
}

}  // namespace c2r
