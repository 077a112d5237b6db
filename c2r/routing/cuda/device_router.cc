// What a device can route, and the memory around the kernel that does it.
#include "c2r/routing/cuda/device_router.h"

#include <cstring>
#include <limits>
#include <span>

#include "c2r/core/error.h"
#include "c2r/routing/cuda/select-inl.h"
#include "c2r/routing/cuda/select_backward-inl.h"
#include "c2r/routing/policy_internal.h"

namespace c2r {
namespace {

constexpr std::uint64_t kNoneInvalid = std::numeric_limits<std::uint64_t>::max();
constexpr std::int64_t kMaxTokens = std::numeric_limits<std::int32_t>::max();

void check_num_tokens(std::int64_t num_tokens) {
  C2R_REQUIRE(num_tokens <= kMaxTokens, kUnsupported,
              "a device routes at most {} tokens at once, not {}; route fewer", kMaxTokens,
              num_tokens);
}

}  // namespace

void check_device_policy(const RoutingPolicy& policy, std::int32_t num_experts) {
  check_policy(policy, num_experts);
  C2R_REQUIRE(policy.scoring != Scoring::kSigmoid, kUnsupported,
              "a device routes by softmax only, but the policy's scores are sigmoids; use Router");
  C2R_REQUIRE(policy.num_groups == 1, kUnsupported,
              "a device routes without groups only, but the policy has {} groups; use Router",
              policy.num_groups);
  C2R_REQUIRE(num_experts <= kMaxSelectExperts, kUnsupported,
              "a device routes over at most {} experts, not {}; use Router", kMaxSelectExperts,
              num_experts);
  C2R_REQUIRE(policy.top_k <= kMaxSelectTopK, kUnsupported,
              "a device routes at most {} choices of a token, not {}; use Router", kMaxSelectTopK,
              policy.top_k);
}

DeviceRouter::DeviceRouter(const RoutingPolicy& policy, std::int32_t num_experts,
                           DeviceStream& stream, SelectLauncher& launcher)
    : policy_((check_device_policy(policy, num_experts), policy)),
      num_experts_(num_experts),
      stream_(stream),
      launcher_(launcher),
      first_invalid_(stream, sizeof(std::uint64_t)),
      pinned_(stream, sizeof(std::uint64_t)) {
  const auto sets = candidate_sets(policy_, num_experts_);
  candidates_ = DeviceBuffer(stream, std::ssize(sets) * std::int64_t{sizeof sets[0]});
  if (!sets.empty()) stream.upload(std::as_bytes(std::span(sets)), candidates_.data());
  stream.upload(std::as_bytes(std::span(&kNoneInvalid, 1)), first_invalid_.data());
}

void DeviceRouter::route_into(MatrixView<const float> logits, MatrixView<ExpertId> topk_idx,
                              MatrixView<float> topk_weights) {
  check_route_shapes(policy_.top_k, num_experts_, logits, topk_idx, topk_weights);
  check_num_tokens(logits.rows());
  if (logits.rows() == 0) return;
  launcher_.launch(
      SelectTokens{.logits = logits.data(),
                   .num_tokens = logits.rows(),
                   .num_experts = num_experts_,
                   .top_k = policy_.top_k,
                   .divides_by_chosen = !needs_sum_over_all(policy_),
                   .scale = policy_.scale,
                   .candidates = reinterpret_cast<const std::uint32_t*>(candidates_.data()),
                   .topk_idx = reinterpret_cast<std::int32_t*>(topk_idx.data()),
                   .topk_weights = topk_weights.data(),
                   .first_invalid = reinterpret_cast<std::uint64_t*>(first_invalid_.data())},
      stream_);
}

void DeviceRouter::backward_into(MatrixView<const float> logits,
                                 MatrixView<const ExpertId> topk_idx,
                                 MatrixView<const float> dweights, MatrixView<float> dlogits) {
  const std::int64_t num_tokens = logits.rows();
  C2R_REQUIRE(logits.cols() == num_experts_ && dlogits.cols() == num_experts_ &&
                  dlogits.rows() == num_tokens && topk_idx.rows() == num_tokens &&
                  topk_idx.cols() == policy_.top_k && dweights.rows() == num_tokens &&
                  dweights.cols() == policy_.top_k,
              kInvalidArgument,
              "the gradients of {} logits of {} experts with {} choices need matrices of such "
              "shapes, but logits are [{}, {}], choices [{}, {}], their gradients [{}, {}] and "
              "those of logits [{}, {}]",
              num_tokens, num_experts_, policy_.top_k, logits.rows(), logits.cols(),
              topk_idx.rows(), topk_idx.cols(), dweights.rows(), dweights.cols(), dlogits.rows(),
              dlogits.cols());
  check_num_tokens(num_tokens);
  if (num_tokens == 0) return;
  launcher_.launch(
      SelectGradients{.logits = logits.data(),
                      .num_tokens = num_tokens,
                      .num_experts = num_experts_,
                      .top_k = policy_.top_k,
                      .divides_by_chosen = !needs_sum_over_all(policy_),
                      .scale = policy_.scale,
                      .topk_idx = reinterpret_cast<const std::int32_t*>(topk_idx.data()),
                      .dweights = dweights.data(),
                      .dlogits = dlogits.data()},
      stream_);
}

void DeviceRouter::check() {
  stream_.copy_to_pinned(first_invalid_.bytes(), pinned_.data());
  stream_.upload(std::as_bytes(std::span(&kNoneInvalid, 1)), first_invalid_.data());
  stream_.record()->synchronize();
  std::uint64_t position = 0;
  std::memcpy(&position, pinned_.data(), sizeof position);
  const auto num_experts = static_cast<std::uint64_t>(num_experts_);
  C2R_REQUIRE(position == kNoneInvalid, kInvalidArgument,
              "the logit of token {} for expert {} is not finite; look for an overflow in the "
              "layers before the router",
              position / num_experts, position % num_experts);
}

}  // namespace c2r
