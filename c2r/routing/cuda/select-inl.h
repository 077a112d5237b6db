// The body of the kernel that routes tokens: one source for devices and for the tests on the host.
//
// Grid: one warp for each token; block: 4 warps. No shared memory. A warp reads the token's logits
// once, 4 num_experts bytes, and the best expert's set of candidates, num_experts / 8 bytes; it
// writes 8 top_k bytes. Lane l of 32 holds experts l, l + 32, ... in registers.
//
// Selection compares keys, so reductions have no order that could change a result. policy.h has the
// definition, policy_reference.cc the reference, which is met bit for bit.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/warp.h"
#include "c2r/core/exp.h"

namespace c2r {

inline constexpr std::int32_t kMaxSelectExperts = 512, kMaxSelectTopK = 16;
inline constexpr int kExpertsOfLane = kMaxSelectExperts / kWarpLanes;

/// What the kernel routes. All addresses are of the device.
struct SelectTokens {
  const float* logits = nullptr;  // [num_tokens, num_experts]
  std::int64_t num_tokens = 0;
  std::int32_t num_experts = 0, top_k = 0;
  bool divides_by_chosen = false;  // weights are divided by their sum over the chosen experts
  float scale = 1;
  // [num_experts, words_per_expert], as in Router; null without a constraint
  const std::uint32_t* candidates = nullptr;
  std::int32_t* topk_idx = nullptr;  // [num_tokens, top_k]
  float* topk_weights = nullptr;     // [num_tokens, top_k]
  // The smallest token * num_experts + expert whose logit is not finite. Set to its largest value
  // before. What is written for such a token is unspecified.
  std::uint64_t* first_invalid = nullptr;
};

/// @returns a number that is larger for a larger logit, and among equal logits for a lower expert;
///          -0 equals +0; never 0
C2R_HOST_DEVICE inline std::uint64_t select_key(float logit, std::int32_t expert) {
  const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0F);  // -0 becomes +0
  const std::uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return std::uint64_t{ascending} << 32 | (0xffffffffU - static_cast<std::uint32_t>(expert));
}
C2R_HOST_DEVICE inline std::int32_t expert_of_key(std::uint64_t key) {
  return static_cast<std::int32_t>(0xffffffffU - static_cast<std::uint32_t>(key & 0xffffffffU));
}

C2R_HOST_DEVICE inline bool is_finite_logit(float logit) {
  return (std::bit_cast<std::uint32_t>(logit) & 0x7f800000U) != 0x7f800000U;
}

/// A token's experts in the registers of a warp: lane l holds experts 32 i + l.
template <class Warp>
struct OpenExperts {
  typename Warp::template Lanes<std::array<std::uint64_t, kExpertsOfLane>> keys;
  typename Warp::template Lanes<std::uint32_t> open;  // bit i: expert 32 i + l may be chosen

  /// @param logit_of float(std::int32_t expert)
  template <class LogitOf>
  C2R_HOST_DEVICE OpenExperts(const Warp& warp, std::int32_t num_experts, const LogitOf& logit_of) {
    warp.each([&](int lane) {
      open[lane] = 0;
      for (int i = 0; i < kExpertsOfLane; ++i) {
        const std::int32_t e = kWarpLanes * i + lane;
        if (e >= num_experts) continue;
        keys[lane][static_cast<std::size_t>(i)] = select_key(logit_of(e), e);
        open[lane] |= 1U << i;
      }
    });
  }

  /// @returns the largest key of those that may be chosen; 0 if there is none
  C2R_HOST_DEVICE std::uint64_t best_key(const Warp& warp) const {
    typename Warp::template Lanes<std::uint64_t> best_of_lane;
    warp.each([&](int lane) {
      std::uint64_t best_key = 0;
      for (int i = 0; i < kExpertsOfLane; ++i) {
        const std::uint64_t key = keys[lane][static_cast<std::size_t>(i)];
        if ((open[lane] >> i & 1U) != 0 && key > best_key) best_key = key;
      }
      best_of_lane[lane] = best_key;
    });
    return warp.largest(best_of_lane);
  }
  /// @returns the best of those that may be chosen, of which there is one
  C2R_HOST_DEVICE std::int32_t best(const Warp& warp) const {
    return expert_of_key(best_key(warp));
  }
  C2R_HOST_DEVICE void close(const Warp& warp, std::int32_t expert) {
    warp.each([&](int lane) {
      if (expert % kWarpLanes == lane) open[lane] &= ~(1U << (expert / kWarpLanes));
    });
  }
  /// Forbids all but the candidates. @param candidates [num_words], of the best expert
  C2R_HOST_DEVICE void keep(const Warp& warp, const std::uint32_t* candidates,
                            std::int32_t num_words) {
    warp.each([&](int lane) {
      for (std::int32_t i = 0; i < num_words; ++i) {
        if ((candidates[i] >> lane & 1U) == 0) open[lane] &= ~(1U << i);
      }
    });
  }
};

/// The sum of exp(logit - shift) over all experts: expert e is added to partial sum e % 16.
template <class Warp>
C2R_HOST_DEVICE inline float sum_of_exps_in_warp(const Warp& warp, std::int32_t num_experts,
                                                 const float* logits, float shift) {
  typename Warp::template Lanes<float> partial;
  warp.each([&](int lane) {
    float sum = 0;
    if (lane < 16) {
      for (std::int32_t e = lane; e < num_experts; e += 16) {
        sum += exp_of_negative(logits[e] - shift);
      }
    }
    partial[lane] = sum;
  });
  return warp.sum_of_neighbours(partial, 16);
}

/// Notes logits that are not finite.
template <class Warp>
C2R_HOST_DEVICE inline void check_logits_in_warp(const Warp& warp, const SelectTokens& task,
                                                 std::int64_t token) {
  warp.each([&](int lane) {
    for (std::int32_t e = lane; e < task.num_experts; e += kWarpLanes) {
      const std::int64_t position = token * task.num_experts + e;
      if (is_finite_logit(task.logits[position])) continue;
      warp.report(task.first_invalid, static_cast<std::uint64_t>(position));
    }
  });
}

/// Routes one token. Lane k holds choice k until all are written.
template <class Warp>
C2R_HOST_DEVICE inline void select_token(const Warp& warp, const SelectTokens& task,
                                         std::int64_t token) {
  check_logits_in_warp(warp, task, token);
  const float* const logits = task.logits + token * task.num_experts;
  const std::int32_t num_words = (task.num_experts + 31) / 32;
  OpenExperts<Warp> experts(warp, task.num_experts, [=](std::int32_t e) { return logits[e]; });
  typename Warp::template Lanes<std::int32_t> chosen;
  typename Warp::template Lanes<float> weight;
  float largest = 0, divisor = 0;
  for (std::int32_t k = 0; k < task.top_k; ++k) {
    const std::int32_t best = experts.best(warp);
    if (k == 0) {
      largest = logits[best];
      if (task.candidates != nullptr) {
        experts.keep(warp, task.candidates + std::int64_t{best} * num_words, num_words);
      }
    }
    experts.close(warp, best);
    const float exp_of_choice = exp_of_negative(logits[best] - largest);
    divisor += exp_of_choice;
    warp.each([&](int lane) {
      if (lane != k) return;
      chosen[lane] = best;
      weight[lane] = exp_of_choice;
    });
  }
  if (!task.divides_by_chosen) {
    divisor = sum_of_exps_in_warp(warp, task.num_experts, logits, largest);
  }
  warp.each([&](int lane) {
    if (lane >= task.top_k) return;
    task.topk_idx[token * task.top_k + lane] = chosen[lane];
    task.topk_weights[token * task.top_k + lane] = weight[lane] * (task.scale / divisor);
  });
}

}  // namespace c2r
