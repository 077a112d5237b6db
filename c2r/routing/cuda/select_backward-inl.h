// The body of the kernel that gives the router's logits their gradients: one source for devices and
// for the tests on the host.
//
// Grid: one warp for each token; block: 4 warps. No shared memory. A warp reads the token's logits,
// 4 num_experts bytes, and 8 top_k bytes of choices and gradients; it reads and writes 4
// num_experts bytes of gradients of logits.
//
// For logits l, chosen experts c_1 to c_K, of which c_1 has the largest logit, weights w_k = scale
// p_{c_k}, and the gradient dw of the weights, with p the softmax over all experts, or over the
// chosen ones if weights are divided by their sum:
//   dl_e += scale p_e (d_e - sum over k of p_{c_k} dw_k),  d_e = dw_k if e = c_k, else 0
// p is 0 for an expert that the softmax leaves out. Choices have no gradient, nor has C2R's
// constraint.
#pragma once

#include <cstdint>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/warp.h"
#include "c2r/core/exp.h"
#include "c2r/routing/cuda/select-inl.h"

namespace c2r {

/// What the kernel computes. All addresses are of the device.
struct SelectGradients {
  const float* logits = nullptr;  // [num_tokens, num_experts]
  std::int64_t num_tokens = 0;
  std::int32_t num_experts = 0, top_k = 0;
  bool divides_by_chosen = false;
  float scale = 1;
  const std::int32_t* topk_idx = nullptr;  // [num_tokens, top_k], as SelectTokens wrote them
  const float* dweights = nullptr;         // [num_tokens, top_k], 0 for a choice that was dropped
  float* dlogits = nullptr;                // [num_tokens, num_experts]
};

/// Adds one token's gradients; none if a choice is no expert, so that nothing is read elsewhere.
template <class Warp>
C2R_HOST_DEVICE inline void add_select_gradients(const Warp& warp, const SelectGradients& task,
                                                 std::int64_t token) {
  const float* const logits = task.logits + token * task.num_experts;
  const std::int32_t* const chosen = task.topk_idx + token * task.top_k;
  const float* const dweights = task.dweights + token * task.top_k;
  for (std::int32_t k = 0; k < task.top_k; ++k) {
    if (chosen[k] < 0 || chosen[k] >= task.num_experts) return;
  }
  const float largest = logits[chosen[0]];
  float sum_of_chosen = 0, product = 0;
  for (std::int32_t k = 0; k < task.top_k; ++k) {
    const float exp_of_choice = exp_of_negative(logits[chosen[k]] - largest);
    sum_of_chosen += exp_of_choice;
    product += exp_of_choice * dweights[k];
  }
  const float divisor = task.divides_by_chosen
                            ? sum_of_chosen
                            : sum_of_exps_in_warp(warp, task.num_experts, logits, largest);
  const float mean = product / divisor;
  warp.each([&](int lane) {
    for (std::int32_t e = lane; e < task.num_experts; e += kWarpLanes) {
      float of_choice = 0;
      bool is_chosen = false;
      for (std::int32_t k = 0; k < task.top_k; ++k) {
        if (chosen[k] != e) continue;
        of_choice = dweights[k], is_chosen = true;
      }
      if (task.divides_by_chosen && !is_chosen) continue;
      const float p = exp_of_negative(logits[e] - largest) / divisor;
      task.dlogits[token * task.num_experts + e] += task.scale * p * (of_choice - mean);
    }
  });
}

}  // namespace c2r
