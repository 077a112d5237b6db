// The vector path of the router, which routes tokens in blocks of as many as a vector has lanes.
//
// 1. set_block() finds the block's logits, or copies them where the task's memory ends too early.
// 2. choose() makes sort keys of the logits or scores and selects each token's best keys. Where two
//    keys are too close to say which score is larger, choose_experts() decides for the token.
// 3. weigh() computes the weights of the chosen experts, and write_weights() transposes them.
//
// Highway compiles the code between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE once per
// instruction set and selects one at run time.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

// Processors that stop at SSE4 cannot fuse a*b+c, as exp does, and are routed portably; vectors of
// unknown length (SVE) cannot be elements of arrays, so Arm uses NEON. Highway 1.0.3 has no name
// yet for the SSE2 of later ones.
#define C2R_HWY_SSE2 (1LL << 14)
#define HWY_DISABLED_TARGETS \
  (C2R_HWY_SSE2 | HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
// The fallback is the portable path, not vectors emulated by loops, with every compiler.
#define HWY_BROKEN_EMU128 1
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "c2r/routing/policy_vectors.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/highway.h>

#include "c2r/routing/groups-inl.h"
#include "c2r/routing/keys-inl.h"
#include "c2r/routing/policy_internal.h"
#include "c2r/routing/scores-inl.h"
#include "c2r/routing/top_k-inl.h"

HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

bool route_tokens(const RouteTask& task) {
  return route_portably(task);
}

#else

static_assert(HWY_NATIVE_FMA, "as the portable path, or results would depend on the processor");

// The state of one block of kLanes tokens while it is routed.
struct Block {
  std::size_t num_tokens = 0;     // the last block's may be fewer than kLanes
  bool is_bounded = false;        // no two logits of the block differ by more than 86
  const float* logits = nullptr;  // [kLanes, num_experts], readable up to the layout's read_width
  ExpertId* topk_idx = nullptr;   // [kLanes, top_k]
  float* topk_weights = nullptr;  // [kLanes, top_k]
  alignas(64) std::int32_t chosen[kMaxTopK * kLanes];  // [top_k, kLanes]
  alignas(64) float weights[kMaxTopK * kLanes];        // [top_k, kLanes]
  // Where the pointers above lead if the task's own memory ends before the block does.
  float own_logits[kLanes * kMaxExperts + kMaxUnused];
  ExpertId own_idx[kLanes * kMaxTopK];
  float own_weights[kLanes * kMaxTopK];
};

// The arguments that are the same for every block.
struct Call {
  const RouteTask& task;
  std::size_t top_k;
  const KeyLayout& layout;
};

// Finds the block's logits, or copies them where reading whole vectors or tokens would leave the
// task's: then the last token fills the lanes that have none, and zeros follow.
void set_logits(const Call& call, std::int64_t first_token, Block& block) {
  const RouteTask& task = call.task;
  const std::size_t num_experts = call.layout.num_experts;
  const std::size_t num_unused = call.layout.read_width() - num_experts;
  const auto num_left = static_cast<std::size_t>(task.num_tokens - first_token);
  block.logits = task.logits + first_token * task.num_experts;
  if (kLanes * num_experts + num_unused <= num_left * num_experts) return;
  float* end = std::copy_n(block.logits, block.num_tokens * num_experts, block.own_logits);
  for (std::size_t t = block.num_tokens; t < kLanes; ++t) {
    end = std::copy_n(end - num_experts, num_experts, end);
  }
  C2R_ASSERT(end + num_unused <= std::end(block.own_logits));
  std::fill_n(end, num_unused, 0.0f);
  block.logits = block.own_logits;
}

void set_block(const Call& call, std::int64_t first_token, Block& block) {
  const RouteTask& task = call.task;
  block.num_tokens =
      static_cast<std::size_t>(std::min<std::int64_t>(kLanes, task.num_tokens - first_token));
  const bool is_full = block.num_tokens == kLanes;
  const std::int64_t first = first_token * task.policy.top_k;
  block.topk_idx = is_full ? task.topk_idx + first : block.own_idx;
  block.topk_weights = is_full ? task.topk_weights + first : block.own_weights;
  set_logits(call, first_token, block);
}

// Nonzero where two keys of a token are too close to say which score is larger.
HWY_INLINE Ints are_close(Ints a, Ints b, const KeyLayout& layout) {
  constexpr IntTag d;
  const Ints differing = hn::And(hn::Xor(a, b), hn::Set(d, layout.kept_bits));
  return hn::VecFromMask(d, hn::Eq(differing, hn::Zero(d)));
}

struct Choice {
  Ints best_keys;     // of each token
  Ints is_undecided;  // nonzero where a token's keys are too close to decide
};

// Chooses `count` experts from the source's keys into rows `first_row` on of block.chosen.
template <class Source>
HWY_INLINE Choice choose_best(Source& source, const KeyLayout& layout, std::size_t first_row,
                              std::size_t count, Block& block) {
  constexpr IntTag d;
  Lists lists;
  lists.capacity = std::bit_ceil(count);
  select_top(source, lists);
  Ints is_undecided = hn::Zero(d);
  for (std::size_t r = 0; r < count; ++r) {
    const Ints key = hn::Load(d, lists.row(0, r)), next = hn::Load(d, lists.row(0, r + 1));
    is_undecided = hn::Or(is_undecided, are_close(key, next, layout));
    hn::Store(layout.experts_of(key), d, block.chosen + (first_row + r) * kLanes);
  }
  return {hn::Load(d, lists.row(0, 0)), is_undecided};
}

// Whether the bits that keys drop are zero in all of a row's logits, as they are in logits that
// were computed in bf16: then even equal prefixes decide.
bool has_exact_keys(const float* row, const KeyLayout& layout) {
  constexpr IntTag d;
  Ints bits = hn::Zero(d);
  for (std::size_t e = 0; e < layout.num_experts; e += kLanes) {
    bits = hn::Or(bits, hn::BitCast(d, hn::LoadU(FloatTag(), row + e)));
  }
  return hn::AllTrue(d, hn::Eq(hn::AndNot(hn::Set(d, layout.kept_bits), bits), hn::Zero(d)));
}

void decide(const Call& call, Ints is_undecided, Block& block) {
  constexpr IntTag d;
  if (hn::AllTrue(d, hn::Eq(is_undecided, hn::Zero(d)))) return;
  alignas(64) std::int32_t lanes[kLanes];
  hn::Store(is_undecided, d, lanes);
  const bool is_sigmoid = call.task.policy.scoring == Scoring::kSigmoid;
  for (std::size_t t = 0; t < block.num_tokens; ++t) {
    if (lanes[t] == 0) continue;
    const float* const row = block.logits + t * call.layout.num_experts;
    if (!is_sigmoid && has_exact_keys(row, call.layout)) continue;
    std::int32_t chosen[kMaxTopK];
    choose_experts(call.task, row, std::span(chosen).first(call.top_k));
    for (std::size_t r = 0; r < call.top_k; ++r) block.chosen[r * kLanes + t] = chosen[r];
  }
}

// Whether all keys are those of scores between -limit and limit, the bits that keys drop aside.
HWY_INLINE bool are_within(Ints least, Ints largest, float limit) {
  constexpr IntTag d;
  const Ints most = hn::Set(d, std::bit_cast<std::int32_t>(limit));
  return hn::AllFalse(d, hn::Gt(hn::Max(largest, hn::Neg(least)), most));
}

// Notes whether a block's logits are close together, from its least and largest keys, among others.
// Returns false if a logit is not finite. The bits that keys drop do not matter: the largest finite
// score ends in ones, and 2 * 43 is well below the 87.3 that exp_of_negated() needs.
HWY_INLINE bool note_range(Ints least, Ints largest, Block& block) {
  block.is_bounded = are_within(least, largest, 43.0f);
  return block.is_bounded || are_within(least, largest, std::numeric_limits<float>::max());
}

// Each returns false if a logit is not finite.
bool choose_freely(const Call& call, Block& block) {
  LogitKeys keys(block.logits, call.layout);
  const Choice choice = choose_best(keys, call.layout, 0, call.top_k, block);
  if (!note_range(keys.least(), choice.best_keys, block)) return false;
  decide(call, choice.is_undecided, block);
  return true;
}

bool choose_collaborators(const Call& call, Block& block) {
  alignas(64) std::int32_t kept[kLanes * kMaxSlots];  // [kLanes, num_vectors, kLanes]
  KeptLogitKeys keys(LogitKeys(block.logits, call.layout), kept);
  const TopTwo<Ints> top = select_top_two(keys);
  if (!note_range(keys.least(), top.best, block)) return false;
  Ints is_undecided = are_close(top.best, top.second, call.layout);
  hn::Store(call.layout.experts_of(top.best), IntTag(), block.chosen);
  if (call.top_k > 1) {
    const std::uint32_t* sets[kLanes];
    for (std::size_t t = 0; t < kLanes; ++t) {
      sets[t] =
          call.task.candidates.data() + block.chosen[t] * words_per_expert(call.task.num_experts);
    }
    CandidateKeys candidates(kept, sets, block.logits, call.layout);
    const Choice others = choose_best(candidates, call.layout, 1, call.top_k - 1, block);
    is_undecided = hn::Or(is_undecided, others.is_undecided);
  }
  decide(call, is_undecided, block);
  return true;
}

bool choose_by_score(const Call& call, Block& block) {
  ScoredKeys scored;
  score_block(call.task.policy, block.logits, call.layout, scored);
  if (!note_range(hn::Neg(scored.largest_magnitude), scored.largest_magnitude, block)) return false;
  OpenKeys keys(scored);
  decide(call, choose_best(keys, call.layout, 0, call.top_k, block).is_undecided, block);
  return true;
}

bool choose(const Call& call, Block& block) {
  const RoutingPolicy& policy = call.task.policy;
  if (policy.constraint) return choose_collaborators(call, block);
  if (policy.scoring == Scoring::kSigmoid || policy.num_groups > 1) {
    return choose_by_score(call, block);
  }
  return choose_freely(call, block);
}

// Writes the experts of kCount choices of token t, from choice `r` on, and gathers their logits
// [top_k, kLanes].
template <std::size_t kCount>
HWY_INLINE void gather_choices(const Call& call, const Block& block, std::size_t t, std::size_t r,
                               float* logits) {
  const float* const row = block.logits + t * call.layout.num_experts;
  ExpertId* const experts = block.topk_idx + t * call.top_k + r;
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::int32_t expert = block.chosen[(r + i) * kLanes + t];
    experts[i] = ExpertId{expert};
    logits[(r + i) * kLanes + t] = row[expert];
  }
}

HWY_INLINE void gather_token(const Call& call, const Block& block, std::size_t t, float* logits) {
  std::size_t r = 0;
  for (; r + 4 <= call.top_k; r += 4) gather_choices<4>(call, block, t, r, logits);
  for (; r < call.top_k; ++r) gather_choices<1>(call, block, t, r, logits);
}

// The same for every token. Returns the sum of exp(logit - largest logit) over all of each token's
// experts: in the same loop, because gathering keeps other units busy than exp does.
template <bool kIsBounded>
HWY_NOINLINE Floats gather_and_sum(const Call& call, const Block& block, float* logits) {
  alignas(64) float sums[kLanes * kLanes];  // [kLanes, kLanes]
  for (std::size_t t = 0; t < kLanes; ++t) {
    gather_token(call, block, t, logits);
    const float* const row = block.logits + t * call.layout.num_experts;
    const Floats partial = partial_sums<kIsBounded>(row, call.layout.num_experts, logits[t]);
    hn::Store(partial, FloatTag(), sums + t * kLanes);
  }
  return sum_rows(sums);
}

// The same, but returns zeros where no sum over all experts is needed.
Floats gather(const Call& call, const Block& block, float* logits) {
  if (needs_sum_over_all(call.task.policy)) {
    return block.is_bounded ? gather_and_sum<true>(call, block, logits)
                            : gather_and_sum<false>(call, block, logits);
  }
  for (std::size_t t = 0; t < kLanes; ++t) gather_token(call, block, t, logits);
  return hn::Zero(FloatTag());
}

void weigh(const Call& call, Block& block) {
  constexpr FloatTag d;
  const RoutingPolicy& policy = call.task.policy;
  const bool is_sigmoid = policy.scoring == Scoring::kSigmoid;
  alignas(64) float logits[kMaxTopK * kLanes];  // [top_k, kLanes]
  const Floats sum_over_all = gather(call, block, logits);
  const Floats shift = hn::Load(d, logits);  // the first choice is the largest logit
  Floats sum = hn::Zero(d);
  for (std::size_t r = 0; r < call.top_k; ++r) {
    Floats weight = hn::Load(d, logits + r * kLanes);
    if (is_sigmoid) {
      sigmoid<1>(&weight);
    } else {
      weight = hn::Sub(shift, weight);
      exp_of_negated<1>(&weight);
    }
    hn::Store(weight, d, block.weights + r * kLanes);
    sum = hn::Add(sum, weight);
  }
  if (needs_sum_over_all(policy)) sum = sum_over_all;
  if (is_sigmoid) sum = policy.norm_topk_prob ? hn::Add(sum, hn::Set(d, 1e-20f)) : hn::Set(d, 1.0f);
  const Floats factor = hn::Div(hn::Set(d, policy.scale), sum);
  for (std::size_t r = 0; r < call.top_k; ++r) {
    float* const at = block.weights + r * kLanes;
    hn::Store(hn::Mul(hn::Load(d, at), factor), d, at);
  }
}

// Columns 0 to kCount - 1 of `fours` [kLanes, 4] become those of `out` [kLanes, top_k].
template <std::size_t kCount>
HWY_INLINE void copy_columns(const float* fours, std::size_t top_k, float* out) {
  for (std::size_t t = 0; t < kLanes; ++t) {
    std::memcpy(out + t * top_k, fours + 4 * t, kCount * sizeof(float));
  }
}

// Transposes the weights [top_k, kLanes] into block.topk_weights [kLanes, top_k]. Rows up to a
// multiple of 4 are read.
void write_weights(const Call& call, const Block& block) {
  constexpr FloatTag d;
  alignas(64) float fours[kLanes * 4];
  for (std::size_t r = 0; r < call.top_k; r += 4) {
    const float* const row = block.weights + r * kLanes;
    hn::StoreInterleaved4(hn::Load(d, row), hn::Load(d, row + kLanes),
                          hn::Load(d, row + 2 * kLanes), hn::Load(d, row + 3 * kLanes), d, fours);
    const std::size_t num_left = call.top_k - r;
    float* const out = block.topk_weights + r;
    if (num_left == 1) copy_columns<1>(fours, call.top_k, out);
    if (num_left == 2) copy_columns<2>(fours, call.top_k, out);
    if (num_left == 3) copy_columns<3>(fours, call.top_k, out);
    if (num_left >= 4) copy_columns<4>(fours, call.top_k, out);
  }
}

bool route_tokens(const RouteTask& task) {
  if (slots_needed(task) > kMaxSlots) return route_portably(task);
  KeyLayout layout;  // large: only what is used is set
  lay_out(task, layout);
  const Call call{task, static_cast<std::size_t>(task.policy.top_k), layout};
  Block block;
  for (std::int64_t t = 0; t < task.num_tokens; t += kLanes) {
    set_block(call, t, block);
    if (!choose(call, block)) return false;
    weigh(call, block);
    write_weights(call, block);
  }
  if (block.topk_idx == block.own_idx) {  // the last block was not full
    const std::size_t num_own = block.num_tokens * call.top_k;
    const std::int64_t first =
        task.num_tokens * task.policy.top_k - static_cast<std::int64_t>(num_own);
    std::copy_n(block.own_idx, num_own, task.topk_idx + first);
    std::copy_n(block.own_weights, num_own, task.topk_weights + first);
  }
  return true;
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace c2r {

HWY_EXPORT(route_tokens);

bool route_with_vectors(const RouteTask& task) {
  return HWY_DYNAMIC_DISPATCH(route_tokens)(task);
}

}  // namespace c2r
#endif  // HWY_ONCE
