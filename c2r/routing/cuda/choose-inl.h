// The body of the kernel that chooses experts for routers of other frameworks: choices without
// weights, under a mask; one source for devices and for the host.
//
// Grid: one warp for each token; block: 4 warps. No shared memory. A warp reads the token's logits
// once, 2 or 4 num_experts bytes, and the best expert's row of the mask, num_experts bytes; it
// writes 8 top_k bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/row_values.h"
#include "c2r/core/cuda/warp.h"
#include "c2r/core/element.h"
#include "c2r/routing/cuda/select-inl.h"

namespace c2r {

/// What the kernel chooses. All addresses are of the device.
struct ChooseExperts {
  const std::byte* logits = nullptr;  // [num_tokens, num_experts] of `type`; NaN: any choice
  ElementType type = ElementType::kF32;
  std::int64_t num_tokens = 0;
  std::int32_t num_experts = 0;  // at most kMaxSelectExperts
  std::int32_t top_k = 0;        // at most num_experts
  // [num_experts, num_experts], row e is true for what may be chosen if e is best; null: all
  const bool* mask = nullptr;
  // [num_tokens, top_k], best first, equal logits by their ids; -1 where no expert is left whose
  // logit is above -infinity
  std::int64_t* topk_idx = nullptr;

  std::int64_t num_blocks() const { return num_tokens; }
  template <class Warp>
  C2R_HOST_DEVICE void run_in_warp(const Warp& warp, std::int64_t token) const {
    constexpr std::uint64_t kKeyBitsOfMinusInfinity = 0x007fffff;  // see select_key()
    const std::byte* const of_token = logits + token * num_experts * element_bytes(type);
    OpenExperts<Warp> experts(
        warp, num_experts, [&](std::int32_t e) { return load_values<1>(of_token, type, e).v[0]; });
    if (mask != nullptr) keep_marked(warp, experts);
    for (std::int32_t k = 0; k < top_k; ++k) {
      const std::uint64_t key = experts.best_key(warp);
      const bool is_expert = key >> 32 > kKeyBitsOfMinusInfinity;
      const std::int32_t best = is_expert ? expert_of_key(key) : -1;
      if (is_expert) experts.close(warp, best);
      warp.each([&](int lane) {
        if (lane == 0) topk_idx[token * top_k + k] = best;
      });
    }
  }

 private:
  template <class Warp>
  C2R_HOST_DEVICE void keep_marked(const Warp& warp, OpenExperts<Warp>& experts) const {
    const bool* const marked = mask + std::int64_t{experts.best(warp)} * num_experts;
    warp.each([&](int lane) {
      for (std::int32_t i = 0; i < kExpertsOfLane; ++i) {
        const std::int32_t e = kWarpLanes * i + lane;
        if (e < num_experts && !marked[e]) experts.open[lane] &= ~(1U << i);
      }
    });
  }
};

}  // namespace c2r
