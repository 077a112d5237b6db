// The router with vectors: blocks of as many tokens as a vector has lanes. Highway compiles what is
// between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE once per instruction set and picks one at
// run time.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

// Processors that stop at SSE4 cannot fuse a*b+c, as exp does, and are routed portably; vectors of
// unknown length (SVE) cannot be elements of arrays, so Arm uses NEON.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
// The fallback is the portable path, not vectors emulated by loops, with every compiler.
#define HWY_BROKEN_EMU128 1
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "c2r/routing/policy_vectors.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/highway.h>

#include "c2r/routing/groups_internal.h"
#include "c2r/routing/keys_internal.h"
#include "c2r/routing/policy_internal.h"
#include "c2r/routing/scores_internal.h"
#include "c2r/routing/top_k_internal.h"

HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

bool route_tokens(const RouteTask& task) {
  return route_portably(task);
}

#else

// kLanes tokens on their way through the router.
struct Block {
  std::int64_t first_token = 0;
  std::size_t num_tokens = 0;  // the last block's may be fewer than kLanes
  bool is_bounded = false;     // no two logits of the block differ by more than 86
  const float* rows[kLanes];   // all valid: lanes past num_tokens repeat the last token
  alignas(64) std::int32_t chosen[(kMaxTopK + 1) * kLanes];  // [top_k, kLanes], and one to spare
  alignas(64) float weights[kMaxTopK * kLanes];              // [top_k, kLanes]
  // Rows at the end of the logits, copied so that whole vectors can be read: fewer than
  // 1 + 30 / num_experts rows, each at most num_experts + 30 floats, see set_rows().
  float tail[kMaxExperts + 16 * 32];
};

// What is the same for every block.
struct Call {
  const RouteTask& task;
  std::size_t top_k;
  KeyLayout layout;
};

void set_rows(const Call& call, std::int64_t first_token, Block& block) {
  const RouteTask& task = call.task;
  const std::int64_t width = static_cast<std::int64_t>(call.layout.read_width());
  const std::int64_t num_logits = task.num_tokens * task.num_experts;
  block.first_token = first_token;
  block.num_tokens =
      static_cast<std::size_t>(std::min<std::int64_t>(kLanes, task.num_tokens - first_token));
  float* free = block.tail;
  for (std::size_t t = 0; t < block.num_tokens; ++t) {
    const std::int64_t at = (first_token + static_cast<std::int64_t>(t)) * task.num_experts;
    block.rows[t] = task.logits + at;
    if (at + width <= num_logits) continue;
    C2R_ASSERT(free + width <= block.tail + std::size(block.tail));
    std::fill_n(std::copy_n(task.logits + at, task.num_experts, free), width - task.num_experts,
                0.0f);
    block.rows[t] = free;
    free += width;
  }
  for (std::size_t t = block.num_tokens; t < kLanes; ++t) {
    block.rows[t] = block.rows[block.num_tokens - 1];
  }
}

// Nonzero where two keys of a token do not say which is better.
HWY_INLINE Ints are_close(Ints a, Ints b, const KeyLayout& layout) {
  constexpr IntTag d;
  const Ints differing = hn::And(hn::Xor(a, b), hn::Set(d, layout.kept_bits));
  return hn::VecFromMask(d, hn::Eq(differing, hn::Zero(d)));
}

struct Choice {
  Ints best_keys;     // of each token
  Ints is_undecided;  // nonzero where a token's keys do not decide
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
    if (!is_sigmoid && has_exact_keys(block.rows[t], call.layout)) continue;
    std::int32_t chosen[kMaxTopK];
    choose_experts(call.task, block.rows[t], std::span(chosen).first(call.top_k));
    for (std::size_t r = 0; r < call.top_k; ++r) block.chosen[r * kLanes + t] = chosen[r];
  }
}

// Notes whether a block's logits are close together, from its least and largest keys, among others.
// Returns false if a logit is not finite.
bool note_range(Ints least, Ints largest, Block& block) {
  const std::int32_t low = hn::GetLane(hn::MinOfLanes(IntTag(), least));
  const std::int32_t high = hn::GetLane(hn::MaxOfLanes(IntTag(), largest));
  // ~key is the key of the opposite score. The bits that keys drop do not matter: the largest
  // finite score ends in ones, and 2 * 43 is well below the 87.3 that exp_of_negative() needs.
  const std::int32_t magnitude = std::max(high, ~low);
  block.is_bounded = magnitude <= std::bit_cast<std::int32_t>(43.0f);
  return magnitude <= std::bit_cast<std::int32_t>(std::numeric_limits<float>::max());
}

// Each returns false if a logit is not finite.
bool choose_freely(const Call& call, Block& block) {
  LogitKeys keys(block.rows, call.layout);
  const Choice choice = choose_best(keys, call.layout, 0, call.top_k, block);
  if (!note_range(keys.least(), choice.best_keys, block)) return false;
  decide(call, choice.is_undecided, block);
  return true;
}

bool choose_collaborators(const Call& call, Block& block) {
  alignas(64) std::int32_t kept[kLanes * kMaxSlots];  // [kLanes, num_vectors, kLanes]
  KeptLogitKeys keys(LogitKeys(block.rows, call.layout), kept);
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
    CandidateKeys candidates(kept, sets, call.layout.num_vectors);
    const Choice others = choose_best(candidates, call.layout, 1, call.top_k - 1, block);
    is_undecided = hn::Or(is_undecided, others.is_undecided);
  }
  decide(call, is_undecided, block);
  return true;
}

bool choose_by_score(const Call& call, Block& block) {
  ScoredKeys scored;
  score_block(call.task.policy, block.rows, call.layout, scored);
  if (!note_range(hn::Not(scored.largest_magnitude), scored.largest_magnitude, block)) return false;
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

// The sum of exp(logit - shift) over all experts of each token.
template <bool kIsBounded>
HWY_NOINLINE Floats sums_over_all(const Call& call, const Block& block, const float* shifts) {
  alignas(64) float sums[kLanes * kLanes];  // [kLanes, kLanes]
  for (std::size_t t = 0; t < kLanes; ++t) {
    prefetch_next<2>(block.rows[t], call.layout.num_experts);
    hn::Store(partial_sums<kIsBounded>(block.rows[t], call.layout.num_experts, shifts[t]),
              FloatTag(), sums + t * kLanes);
  }
  return sum_rows(sums);
}

// logits[r * kLanes + t] = the logit of token t's choice r.
void gather_logits(const Call& call, const Block& block, float* logits) {
  for (std::size_t t = 0; t < kLanes; ++t) {
    prefetch_next<1>(block.rows[t], call.layout.num_experts);
    if (!needs_sum_over_all(call.task.policy)) {
      prefetch_next<2>(block.rows[t], call.layout.num_experts);
    }
  }
  for (std::size_t r = 0; r < call.top_k; ++r) {
    for (std::size_t t = 0; t < kLanes; ++t) {
      logits[r * kLanes + t] = block.rows[t][block.chosen[r * kLanes + t]];
    }
  }
}

void weigh(const Call& call, Block& block) {
  constexpr FloatTag d;
  const RoutingPolicy& policy = call.task.policy;
  const bool is_sigmoid = policy.scoring == Scoring::kSigmoid;
  alignas(64) float logits[kMaxTopK * kLanes];  // [top_k, kLanes]
  gather_logits(call, block, logits);
  const Floats shift = hn::Load(d, logits);  // the first choice is the largest logit
  Floats sum = hn::Zero(d);
  for (std::size_t r = 0; r < call.top_k; ++r) {
    Floats weight = hn::Load(d, logits + r * kLanes);
    if (is_sigmoid) {
      sigmoid<1>(&weight);
    } else {
      weight = hn::Sub(weight, shift);
      exp_of_negative<1>(&weight);
    }
    hn::Store(weight, d, block.weights + r * kLanes);
    sum = hn::Add(sum, weight);
  }
  if (needs_sum_over_all(policy)) {
    sum = block.is_bounded ? sums_over_all<true>(call, block, logits)
                           : sums_over_all<false>(call, block, logits);
  }
  if (is_sigmoid) sum = policy.norm_topk_prob ? hn::Add(sum, hn::Set(d, 1e-20f)) : hn::Set(d, 1.0f);
  const Floats factor = hn::Div(hn::Set(d, policy.scale), sum);
  for (std::size_t r = 0; r < call.top_k; ++r) {
    float* const at = block.weights + r * kLanes;
    hn::Store(hn::Mul(hn::Load(d, at), factor), d, at);
  }
}

// Columns 0 to kCount - 1 of `fours` [num_tokens, 4] become those of `out` [num_tokens, top_k].
template <std::size_t kCount, class T, class Out>
HWY_INLINE void copy_columns(const T* fours, std::size_t top_k, std::size_t num_tokens, Out* out) {
  static_assert(sizeof(T) == sizeof(Out));
  for (std::size_t t = 0; t < num_tokens; ++t) {
    std::memcpy(out + t * top_k, fours + 4 * t, kCount * sizeof(T));
  }
}

// Transposes `values` [top_k, kLanes] into `out` [num_tokens, top_k]. Rows up to a multiple of 4
// are read.
template <class T, class Out>
HWY_INLINE void write_transposed(const T* values, std::size_t top_k, std::size_t num_tokens,
                                 Out* out) {
  constexpr hn::FixedTag<T, kLanes> d;
  alignas(64) T fours[kLanes * 4];
  for (std::size_t r = 0; r < top_k; r += 4) {
    const T* const row = values + r * kLanes;
    hn::StoreInterleaved4(hn::Load(d, row), hn::Load(d, row + kLanes),
                          hn::Load(d, row + 2 * kLanes), hn::Load(d, row + 3 * kLanes), d, fours);
    const std::size_t num_left = top_k - r;
    if (num_left == 1) copy_columns<1>(fours, top_k, num_tokens, out + r);
    if (num_left == 2) copy_columns<2>(fours, top_k, num_tokens, out + r);
    if (num_left == 3) copy_columns<3>(fours, top_k, num_tokens, out + r);
    if (num_left >= 4) copy_columns<4>(fours, top_k, num_tokens, out + r);
  }
}

void write(const Call& call, const Block& block) {
  const std::int64_t first = block.first_token * call.task.policy.top_k;
  for (std::size_t t = 0; t < kLanes; ++t) {
    prefetch_next<3>(block.rows[t], call.layout.num_experts);
  }
  write_transposed(block.chosen, call.top_k, block.num_tokens, call.task.topk_idx + first);
  write_transposed(block.weights, call.top_k, block.num_tokens, call.task.topk_weights + first);
}

bool route_tokens(const RouteTask& task) {
  if (slots_needed(task) > kMaxSlots) return route_portably(task);
  Call call{.task = task, .top_k = static_cast<std::size_t>(task.policy.top_k), .layout = {}};
  lay_out(task, call.layout);
  Block block;
  for (std::int64_t t = 0; t < task.num_tokens; t += kLanes) {
    set_rows(call, t, block);
    if (!choose(call, block)) return false;
    weigh(call, block);
    write(call, block);
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
