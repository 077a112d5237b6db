// Copies token sets into compact rows and lists the sets of each expert.
#include "c2r/placement/search/set_index.h"

#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
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

}  // namespace

SetIndex::SetIndex(const TokenSets& sets)
    : num_experts_(sets.num_experts),
      width_(static_cast<std::size_t>(sets.top_k())),
      experts_(static_cast<std::size_t>(sets.num_sets() * sets.top_k())),
      sizes_(static_cast<std::size_t>(sets.num_sets())),
      weights_(sets.multiplicity),
      offsets_(static_cast<std::size_t>(sets.num_experts) + 1),
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
      ++offsets_[index(e) + 1];
    }
  }
  std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  set_ids_.resize(offsets_.back());
  auto next = offsets_;
  for (std::int64_t set = 0; set < num_sets(); ++set) {
    for (const std::uint16_t e : experts(set)) set_ids_[next[e]++] = static_cast<std::int32_t>(set);
  }
}

}  // namespace c2r
