// Plans for the tests of this module.
#pragma once

#include <random>

#include "c2r/core/rng.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/plan.h"

namespace c2r::testing {

/// 2 MoE layers, 1 and 3, of a 4-layer model; 4 experts on 2 ranks without replicas.
inline Plan small_plan() {
  const auto lists = [](std::initializer_list<int> experts) {
    Matrix<ExpertId> matrix(std::ssize(experts), 1);
    auto entry = matrix.all().begin();
    for (const int e : experts) *entry++ = ExpertId{e};
    return matrix;
  };
  return {.model = "tiny",
          .num_experts = 4,
          .top_k = 2,
          .top_t = 1,
          .cluster = {.ranks_per_node = 2},
          .layers = {{.layer_index = 1,
                      .placement = make_placement(4, {{0, 3}, {1, 2}}),
                      .collaborators = lists({3, 2, 1, 0})},
                     {.layer_index = 3,
                      .placement = make_placement(4, {{0, 1}, {2, 3}}),
                      .collaborators = lists({1, 0, 3, 2})}},
          .predictions = {{.trace = "t.safetensors",
                           .num_tokens = 10,
                           .replica_rule = ReplicaRule::kLocalFirst,
                           .copies_per_token = {1.1, 1.5},
                           .wire_copies_per_token = {0.55, 0.75},
                           .inter_node_copies_per_token = {0, 0},
                           .imbalance = {1, 1.25}}},
          .provenance = {.c2r_version = "0.1.0",
                         .method = "affinity",
                         .seed = 7,
                         .inputs = {{.role = "trace",
                                     .name = "t.safetensors",
                                     .hash = "0123456789abcdef",
                                     .part = SequencePart::kEven}},
                         .options = {{"fit", "even"}, {"max_imbalance", 1.1}},
                         .ended_by = "interrupt"}};
}

/// Weights of the ids 5 and 9 for two ranks.
inline TokenWeights small_token_weights() {
  TokenWeights weights{.ids = {TokenId{5}, TokenId{9}}, .weights = {2, 2}, .of_others = {0, -0.25}};
  weights.weights(0, 0) = 0.5;
  weights.weights(0, 1) = -0.5;
  weights.weights(1, 1) = 0.25;
  return weights;
}

/// small_plan() with what version 3 brought: layers with different T and slots, homes, two input
/// traces, and a prediction whose copies are unknown.
inline Plan full_plan() {
  Plan plan = small_plan();
  plan.top_t = 2;
  plan.layers[1].placement = make_placement(4, {{0, 1, 2}, {2, 3, 0}});
  plan.layers[1].collaborators = Matrix<ExpertId>(4, 2);
  for (std::int32_t e = 0; e < 4; ++e) {
    plan.layers[1].collaborators(e, 0) = ExpertId{(e + 1) % 4};
    plan.layers[1].collaborators(e, 1) = ExpertId{(e + 2) % 4};
  }
  Matrix<double> weights(2, 4);
  weights(0, 0) = weights(0, 1) = weights(1, 2) = 1;
  weights(1, 3) = 0.5;
  plan.homes = {
      .sequences = {{.trace_hash = "0123456789abcdef", .ranks = {RankId{0}, RankId{1}, RankId{1}}}},
      .signature = HomeSignature{.layer_index = 3,
                                 .num_tokens = 2,
                                 .weights = std::move(weights),
                                 .token_weights = small_token_weights()}};
  plan.predictions.push_back({.placement = "placement",
                              .trace = "u.safetensors",
                              .num_tokens = 4,
                              .replica_rule = ReplicaRule::kLocalFirst,
                              .homes = Homes::kSignature,
                              .imbalance = {1.5, 1}});
  plan.provenance.inputs.push_back({.role = "trace", .name = "u.safetensors"});
  return plan;
}

/// Layers with gaps between them, replicas where they fit, up to 2 x 4 ranks; no predictions.
inline Plan random_plan(unsigned seed) {
  std::mt19937_64 rng(seed);
  Plan plan{.model = "random",
            .num_experts = std::int32_t(1 + uniform_below(20, rng)),
            .top_k = 1,
            .cluster = {.num_nodes = std::int32_t(1 + uniform_below(2, rng)),
                        .ranks_per_node = std::int32_t(1 + uniform_below(4, rng))}};
  const std::int32_t ep_size = plan.cluster.ep_size();
  const Placement first = random_placement(plan.num_experts, ep_size, 2, rng);
  std::int32_t layer_index = 0;
  for (std::uint64_t l = 0; l < 1 + seed % 5; ++l) {
    layer_index += std::int32_t(uniform_below(3, rng));
    Placement placement = first;  // as many slots in every layer, other experts in them
    std::vector<std::int32_t> renamed(std::size_t(plan.num_experts));
    std::iota(renamed.begin(), renamed.end(), 0);
    shuffle(std::span(renamed), rng);
    for (ExpertId& e : placement.slots.all()) e = ExpertId{renamed[index(e)]};
    plan.layers.push_back({.layer_index = layer_index++, .placement = placement});
  }
  return plan;
}

}  // namespace c2r::testing
