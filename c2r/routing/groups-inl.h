// Choosing among groups of experts, and by sigmoid scores: compiled once per instruction set.
#if defined(C2R_ROUTING_GROUPS_INTERNAL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef C2R_ROUTING_GROUPS_INTERNAL_H_
#undef C2R_ROUTING_GROUPS_INTERNAL_H_
#else
#define C2R_ROUTING_GROUPS_INTERNAL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <limits>

#include "c2r/routing/keys-inl.h"
#include "c2r/routing/scores-inl.h"
#include "c2r/routing/top_k-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

// The keys of a block's experts, which are computed once because they are read twice or are
// expensive, and the open vectors of each token: those of the groups from which experts may be
// chosen.
struct ScoredKeys {
  alignas(64) std::int32_t keys[kLanes * kMaxSlots];  // [kLanes, num_slots]
  alignas(64) float group_scores[kMaxSlots];          // [num_groups, kLanes]
  std::int32_t open[kLanes][kMaxSlots / kLanes];      // first slots of open vectors
  std::size_t num_slots, num_open;                    // vectors
  Ints largest_magnitude;                             // of a logit
};

// The keys of each token's open vectors.
class OpenKeys {
 public:
  explicit OpenKeys(const ScoredKeys& scored) : scored_(&scored) {}

  std::size_t num_vectors() const { return scored_->num_open; }
  bool has(std::size_t v) const { return v < scored_->num_open; }
  void start(std::size_t) const {}

  HWY_INLINE Ints load(std::size_t t, std::size_t v) const {
    const auto slot = static_cast<std::size_t>(scored_->open[t][v]);
    return hn::Load(IntTag(), scored_->keys + t * scored_->num_slots + slot);
  }

 private:
  const ScoredKeys* scored_;
};

// Scores and keys of kCount vectors of group `g` of token `t`, from the group's
// vector `v` on.
template <Scoring kScoring, std::size_t kCount>
HWY_INLINE void score_vectors(const float* row, const KeyLayout& layout, std::size_t t,
                              std::size_t g, std::size_t v, ScoredKeys& scored,
                              TopTwo<Floats>& two) {
  constexpr FloatTag d;
  constexpr IntTag di;
  const std::size_t slot = (g * layout.vectors_per_group + v) * kLanes;
  const float* const at = row + g * layout.group_size + v * kLanes;
  Floats scores[kCount];
  for (std::size_t i = 0; i < kCount; ++i) {
    prefetch(at + (layout.num_experts + i) * kLanes);
    scores[i] = hn::LoadU(d, at + i * kLanes);
    const Ints bits = hn::BitCast(di, scores[i]);
    scored.largest_magnitude = hn::Max(scored.largest_magnitude, magnitude(bits));
  }
  if constexpr (kScoring == Scoring::kSigmoid) sigmoid<kCount>(scores);
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::size_t here = slot + i * kLanes;
    if constexpr (kScoring == Scoring::kSigmoid) {
      scores[i] = hn::Add(scores[i], hn::Load(d, layout.bias + here));
    }
    const Ints ordered = ordered_bits(scores[i], layout, here / kLanes);
    hn::Store(make_keys(ordered, layout, here / kLanes), di,
              scored.keys + t * scored.num_slots + here);
    if ((v + i + 1) * kLanes > layout.group_size) {
      const std::size_t num_used =
          layout.group_size - std::min(layout.group_size, (v + i) * kLanes);
      const Floats none = hn::Set(d, -std::numeric_limits<float>::infinity());
      scores[i] = hn::IfThenElse(hn::FirstN(d, num_used), scores[i], none);
    }
    two.second = hn::Max(two.second, hn::Min(two.best, scores[i]));
    two.best = hn::Max(two.best, scores[i]);
  }
}

// Scores and keys of group `g` of token `t`. Returns the best two scores of each lane.
template <Scoring kScoring>
HWY_INLINE TopTwo<Floats> score_group(const float* row, const KeyLayout& layout, std::size_t t,
                                      std::size_t g, ScoredKeys& scored) {
  const Floats none = hn::Set(FloatTag(), -std::numeric_limits<float>::infinity());
  TopTwo<Floats> two{none, none};
  std::size_t v = 0;
  for (; v + 2 <= layout.vectors_per_group; v += 2) {
    score_vectors<kScoring, 2>(row, layout, t, g, v, scored, two);
  }
  if (v < layout.vectors_per_group) {
    score_vectors<kScoring, 1>(row, layout, t, g, v, scored, two);
  }
  return two;
}

// Marks the vectors of each token's best groups as open, in ascending order.
HWY_INLINE void open_groups(const RoutingPolicy& policy, const KeyLayout& layout,
                            ScoredKeys& scored) {
  constexpr FloatTag d;
  constexpr IntTag di;
  const auto num_groups = static_cast<std::size_t>(policy.num_groups);
  std::size_t num_open[kLanes] = {};
  for (std::size_t g = 0; g < num_groups; ++g) {
    const Floats score = hn::Load(d, scored.group_scores + g * kLanes);
    Ints rank = hn::Zero(di);  // how many groups are better
    for (std::size_t h = 0; h < num_groups; ++h) {
      const Floats other = hn::Load(d, scored.group_scores + h * kLanes);
      const auto is_better = h < g ? hn::Ge(other, score) : hn::Gt(other, score);
      rank = hn::Sub(rank, hn::BitCast(di, hn::VecFromMask(d, is_better)));
    }
    alignas(64) std::int32_t ranks[kLanes];
    hn::Store(rank, di, ranks);
    for (std::size_t t = 0; t < kLanes; ++t) {
      if (ranks[t] >= policy.top_groups) continue;
      for (std::size_t v = 0; v < layout.vectors_per_group; ++v) {
        scored.open[t][num_open[t]++] =
            static_cast<std::int32_t>((g * layout.vectors_per_group + v) * kLanes);
      }
    }
  }
}

template <Scoring kScoring>
HWY_INLINE void score_block_as(const RoutingPolicy& policy, const float* logits,
                               const KeyLayout& layout, ScoredKeys& scored) {
  for (std::size_t g = 0; g < static_cast<std::size_t>(policy.num_groups); ++g) {
    TopTwo<Floats> tokens[kLanes];
    for (std::size_t t = 0; t < kLanes; ++t) {
      tokens[t] = score_group<kScoring>(logits + t * layout.num_experts, layout, t, g, scored);
    }
    if (policy.num_groups == 1) continue;
    const auto [best, second] = pair_all_top_two<kLanes>(tokens);
    const bool is_max = policy.group_score == GroupScore::kMax;
    hn::Store(is_max ? best : hn::Add(best, second), FloatTag(), scored.group_scores + g * kLanes);
  }
}

/// Scores every expert of a block, and opens the best groups of each token.
HWY_INLINE void score_block(const RoutingPolicy& policy, const float* logits,
                            const KeyLayout& layout, ScoredKeys& scored) {
  scored.num_slots = layout.num_slots();
  scored.num_open = static_cast<std::size_t>(policy.top_groups) * layout.vectors_per_group;
  scored.largest_magnitude = hn::Zero(IntTag());
  if (policy.num_groups == 1) {
    for (auto& open : scored.open) {
      for (std::size_t v = 0; v < scored.num_open; ++v) {
        open[v] = static_cast<std::int32_t>(v * kLanes);
      }
    }
  }
  if (policy.scoring == Scoring::kSigmoid) {
    score_block_as<Scoring::kSigmoid>(policy, logits, layout, scored);
  } else {
    score_block_as<Scoring::kSoftmax>(policy, logits, layout, scored);
  }
  if (policy.num_groups > 1) open_groups(policy, layout, scored);
}

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target include guard
