// A whole MoE layer of a test in the memory of a device, fake or real: routing, dispatch, experts
// and combine.
#pragma once

#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "c2r/dispatch/cuda/device_layer_testing.h"
#include "c2r/experts/cuda/device_experts.h"
#include "c2r/experts/testing_internal.h"
#include "c2r/routing/cuda/device_router.h"
#include "c2r/routing/policy_reference.h"

namespace c2r::testing {

/// Logits of each rank's tokens, their choices by the reference, and experts that can be told
/// apart.
struct DeviceLayerProblem {
  DeviceLayerProblem(const DispatchOptions& options, std::uint64_t seed)
      : exchange(random_problem(options, seed)), rng(std::uint32_t(seed)) {
    constexpr std::int64_t kHidden = 16, kIntermediate = 8;
    exchange.hidden = kHidden;
    const std::int32_t num_experts = exchange.placement.num_experts;
    policy = {.scoring = seed % 2 == 0 ? Scoring::kSoftmax : Scoring::kSoftmaxOverChosen,
              .top_k = std::int32_t(exchange.batches[0].topk_idx.cols()),
              .scale = 1.5F};
    if (seed % 3 == 1 && policy.top_k < num_experts) constrain(num_experts);
    for (TokenBatch& batch : exchange.batches) {
      const std::int64_t num_tokens = batch.x.rows();
      batch.x = random_matrix(num_tokens, kHidden, rng);
      logits.emplace_back(num_tokens, num_experts);
      for (float& v : logits.back().all()) v = float(int(rng() % 16)) / 4;  // with ties
      Routing routing = route_reference(policy, logits.back());
      batch.topk_idx = std::move(routing.topk_idx);
      batch.topk_weights = std::move(routing.topk_weights);
    }
    for (std::int32_t e = 0; e < num_experts; ++e) {
      const auto add = [&](std::int64_t outputs, std::int64_t inputs) {
        return stored.emplace_back(outputs, inputs, ElementType::kBf16, rng).view;
      };
      experts.push_back({.gate = add(kIntermediate, kHidden),
                         .up = add(kIntermediate, kHidden),
                         .down = add(kHidden, kIntermediate)});
    }
  }

  // An expert's collaborators are the next ones.
  void constrain(std::int32_t num_experts) {
    CollaborationConstraint constraint{.top_t = policy.top_k,
                                       .collaborators = {num_experts, policy.top_k}};
    for (std::int32_t e = 0; e < num_experts; ++e) {
      for (std::int32_t i = 0; i < policy.top_k; ++i) {
        constraint.collaborators(e, i) = ExpertId{(e + i + 1) % num_experts};
      }
    }
    policy.constraint = std::move(constraint);
  }
  std::vector<const ExpertWeights*> slots(RankId rank) const {
    std::vector<const ExpertWeights*> of_rank;
    for (const ExpertId e : exchange.placement.slots.row(std::int64_t(index(rank)))) {
      of_rank.push_back(e == kNoExpert ? nullptr : &experts[index(e)]);
    }
    return of_rank;
  }
  ExchangeProblem exchange;
  std::mt19937 rng;
  RoutingPolicy policy;
  std::vector<Matrix<float>> logits;  // [ep_size]
  std::deque<RandomWeights> stored;
  std::vector<ExpertWeights> experts;
};

/// Routes on the device; the choices are copied to the host, where handles are made.
inline Routing route_on_device(const DeviceLayerProblem& problem, const Matrix<float>& logits,
                               DeviceStream& stream, SelectLauncher& launcher) {
  DeviceRouter router(problem.policy, std::int32_t(logits.cols()), stream, launcher);
  Routing routing{.num_experts = std::int32_t(logits.cols()),
                  .topk_idx = {logits.rows(), problem.policy.top_k},
                  .topk_weights = {logits.rows(), problem.policy.top_k}};
  const DeviceMatrix on_device(stream, logits);
  const auto num_bytes = std::int64_t(routing.topk_idx.all().size_bytes());
  const DeviceBuffer idx(stream, num_bytes), weights(stream, num_bytes);
  router.route_into(
      {on_device.view().data(), logits.rows(), logits.cols()},
      {reinterpret_cast<ExpertId*>(idx.data()), logits.rows(), problem.policy.top_k},
      {reinterpret_cast<float*>(weights.data()), logits.rows(), problem.policy.top_k});
  const PinnedBuffer idx_copy(stream, num_bytes), weights_copy(stream, num_bytes);
  stream.copy_to_pinned(idx.bytes(), idx_copy.data());
  stream.copy_to_pinned(weights.bytes(), weights_copy.data());
  router.check();  // waits
  if (num_bytes > 0) {
    std::memcpy(routing.topk_idx.all().data(), idx_copy.data(), std::size_t(num_bytes));
    std::memcpy(routing.topk_weights.all().data(), weights_copy.data(), std::size_t(num_bytes));
  }
  return routing;
}

/// What a layer runs on.
struct DeviceParts {
  DeviceStream& compute;
  DeviceNetwork& network;
  RowLauncher& row_launcher;
  ExpertLauncher& expert_launcher;
  SelectLauncher& select_launcher;
  GroupedProducts& products;
};

/// @returns the sums of this rank's tokens
inline Matrix<float> run_device_layer(Transport& transport, const DeviceLayerProblem& problem,
                                      std::int32_t num_chunks, const DeviceParts& on) {
  const TokenBatch& batch = problem.exchange.batches[index(transport.rank())];
  DeviceRowMover mover(on.compute, on.network, on.row_launcher);
  Dispatcher dispatcher(transport, mover, problem.exchange.placement, problem.exchange.options);
  DeviceExperts experts(on.compute, on.products, on.expert_launcher,
                        problem.slots(transport.rank()));
  const Routing routing = route_on_device(problem, problem.logits[index(transport.rank())],
                                          on.compute, on.select_launcher);
  const DeviceMatrix x(on.compute, batch.x),
      sum(on.compute, Matrix<float>(batch.x.rows(), batch.x.cols()));
  Pipeline pipeline(on.compute, num_chunks);
  const PipelineWork work{.experts = [&](const auto& offsets, const auto& rows, auto out) {
    experts.forward(offsets, rows, out);
  }};
  pipeline.run(dispatcher, {x.view().data(), x.view().rows(), x.view().cols()}, routing.topk_idx,
               routing.topk_weights, batch.first_token, "layer 3", work, sum.view());
  return sum.download();
}

/// What a layer and its backward pass give one rank.
struct DeviceGradientResults {
  Matrix<float> y, dx, dweights, dlogits;
  std::vector<ExactExpert> dexperts;  // of each slot
};

/// Drops some choices after routing, as a capacity does.
inline void drop_choices(Matrix<ExpertId>& topk_idx) {
  for (std::int64_t i = 0; i < std::ssize(topk_idx.all()); i += 5) {
    topk_idx.all()[std::size_t(i)] = kNoExpert;
  }
}

/// @returns zeros for each slot that has an expert
inline std::vector<ExactExpert> no_expert_gradients(const DeviceLayerProblem& problem,
                                                    RankId rank) {
  std::vector<ExactExpert> none;
  for (const ExpertWeights* expert : problem.slots(rank)) {
    none.push_back(expert == nullptr ? ExactExpert{} : zero_gradients(exact_expert(*expert)));
  }
  return none;
}

/// Forward and backward, where routing is followed by drop_choices().
/// @param dy [num_tokens, hidden], gradients of this rank's sums
inline DeviceGradientResults run_device_gradients(Transport& transport,
                                                  const DeviceLayerProblem& problem,
                                                  const Matrix<float>& dy, std::int32_t num_chunks,
                                                  const DeviceParts& on) {
  const TokenBatch& batch = problem.exchange.batches[index(transport.rank())];
  const Matrix<float>& logits = problem.logits[index(transport.rank())];
  const auto read = [](const DeviceMatrix& of) -> MatrixView<const float> {
    return {of.view().data(), of.view().rows(), of.view().cols()};
  };
  DeviceRowMover mover(on.compute, on.network, on.row_launcher);
  Dispatcher dispatcher(transport, mover, problem.exchange.placement, problem.exchange.options);
  DeviceExperts experts(on.compute, on.products, on.expert_launcher,
                        problem.slots(transport.rank()));
  const Routing routing = route_on_device(problem, logits, on.compute, on.select_launcher);
  Matrix<ExpertId> topk_idx = routing.topk_idx;
  drop_choices(topk_idx);

  const Matrix<float> no_rows(batch.x.rows(), batch.x.cols()),
      no_choices(topk_idx.rows(), topk_idx.cols());
  const DeviceMatrix x(on.compute, batch.x), y(on.compute, no_rows), dsum(on.compute, dy),
      dx(on.compute, no_rows), weights(on.compute, routing.topk_weights),
      dweights(on.compute, no_choices), routed(on.compute, logits),
      dlogits(on.compute, Matrix<float>(logits.rows(), logits.cols()));
  Pipeline pipeline(on.compute, num_chunks);
  KeptBatch kept;
  const PipelineWork forward{.experts = [&](const auto& offsets, const auto& rows, auto out) {
    experts.forward(offsets, rows, out);
  }};
  pipeline.run(dispatcher, read(x), topk_idx, routing.topk_weights, batch.first_token, "layer 3",
               forward, y.view(), &kept);
  const PipelineBackwardWork backward{
      .experts = [&](const auto& offsets, const auto& rows, const auto& dout, auto drows) {
        experts.backward_on_device(offsets, rows, dout, drows);
      }};
  pipeline.run_backward(kept,
                        {.dsum = read(dsum),
                         .topk_weights = read(weights),
                         .dx = dx.view(),
                         .dweights = dweights.view()},
                        backward);

  DeviceRouter router(problem.policy, std::int32_t(logits.cols()), on.compute, on.select_launcher);
  const auto chosen = std::as_bytes(routing.topk_idx.all());
  const DeviceBuffer idx(on.compute, std::ssize(chosen));
  on.compute.upload(chosen, idx.data());
  router.backward_into(
      read(routed),
      {reinterpret_cast<const ExpertId*>(idx.data()), topk_idx.rows(), topk_idx.cols()},
      read(dweights), dlogits.view());
  DeviceGradientResults results{y.download(), dx.download(), dweights.download(),
                                dlogits.download(), no_expert_gradients(problem, transport.rank())};
  experts.take_gradients(results.dexperts);
  return results;
}

}  // namespace c2r::testing
