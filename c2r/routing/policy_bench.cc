// Compares the time of each policy with that of reading the logits from memory, on one thread.
//
// Every benchmark alternates three sweeps over the same logits, which are larger than the caches:
// a sum that reads them at memory speed, the policy, and the same policy without its constraint.
// It reports the policy's time and, each a quotient of the fastest sweeps:
//   ratio_to_read           the policy : reading; results are written, and not counted
//   ratio_to_unconstrained  the policy : the policy without its constraint, where it has one
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "c2r/routing/policy.h"
#include "c2r/routing/policy_reference.h"

namespace c2r {
namespace {

constexpr std::int64_t kNumLogits = 24 << 20;  // 96 MiB

struct Problem {
  std::string name;
  std::int32_t num_experts;
  RoutingPolicy policy;
};

struct Outputs {
  Matrix<ExpertId> topk_idx;
  Matrix<float> topk_weights;
};

// Every expert's collaborators are the experts after it, cyclically.
CollaborationConstraint next_experts(std::int32_t top_t, std::int32_t num_experts) {
  CollaborationConstraint constraint{top_t, {num_experts, top_t}};
  for (std::int32_t e = 0; e < num_experts; ++e) {
    for (std::int32_t i = 0; i < top_t; ++i) {
      constraint.collaborators(e, i) = ExpertId{(e + 1 + i) % num_experts};
    }
  }
  return constraint;
}

RoutingPolicy without_constraint(RoutingPolicy policy) {
  policy.constraint = std::nullopt;
  return policy;
}

Problem constrained(Problem problem, std::int32_t top_t) {
  problem.name += "_c2r_t" + std::to_string(top_t);
  problem.policy.constraint = next_experts(top_t, problem.num_experts);
  return problem;
}

Problem deepseek_v3() {
  Problem problem{"deepseek_v3",
                  256,
                  {.scoring = Scoring::kSigmoid,
                   .top_k = 8,
                   .norm_topk_prob = true,
                   .scale = 2.5,
                   .num_groups = 8,
                   .top_groups = 4,
                   .group_score = GroupScore::kSumOfBestTwo}};
  for (int e = 0; e < 256; ++e) {
    problem.policy.selection_bias.push_back(static_cast<float>(e * 37 % 64) / 256);
  }
  return problem;
}

std::vector<Problem> problems() {
  const Problem llama_moe{
      "llama_moe", 8, {.scoring = Scoring::kSoftmaxOverChosen, .top_k = 2, .scale = 4}};
  const Problem mixtral{"mixtral", 8, {.top_k = 2, .norm_topk_prob = true}};
  const Problem qwen_moe{"qwen_moe", 60, {.top_k = 4}};
  const Problem olmoe{"olmoe", 64, {.top_k = 8}};
  const Problem deepseek_v2{
      "deepseek_v2", 160, {.top_k = 6, .scale = 16, .num_groups = 8, .top_groups = 3}};
  const Problem softmax_256{"softmax_e256_k8", 256, {.top_k = 8}};
  const Problem chosen_256{
      "softmax_over_chosen_e256_k8", 256, {.scoring = Scoring::kSoftmaxOverChosen, .top_k = 8}};
  return {llama_moe,
          constrained(llama_moe, 5),
          mixtral,
          qwen_moe,
          constrained(qwen_moe, 30),
          olmoe,
          constrained(olmoe, 16),
          softmax_256,
          constrained(softmax_256, 64),
          chosen_256,
          constrained(chosen_256, 64),
          deepseek_v2,
          deepseek_v3()};
}

// Logits like a router's, the same floats read as [num_tokens, num_experts] by every problem.
const std::vector<float>& shared_logits() {
  static const std::vector<float> logits = [] {
    std::vector<float> values(static_cast<std::size_t>(kNumLogits));
    std::mt19937_64 rng(1);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i >= 1 << 20) {  // repeats, shifted against any number of experts, to start quickly
        values[i] = values[i - (1 << 20) + 1];
        continue;
      }
      const std::uint64_t bits = rng();
      const auto sum = static_cast<std::int64_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                                 ((bits >> 32) & 0xffff) + (bits >> 48));
      values[i] = static_cast<float>(sum - 2 * 65535) * (2.0f / 37837);
    }
    return values;
  }();
  return logits;
}

MatrixView<const float> logits_for(std::int32_t num_experts) {
  return {shared_logits().data(), kNumLogits / num_experts, num_experts};
}

// Reads all: every float is in the result, or the compiler would leave out the lines that are not.
// Wider loads read faster: more lines are under way at once.
#ifdef __x86_64__
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
float sum_all(MatrixView<const float> logits) {
  constexpr std::int64_t kSums = 64;
  std::array<float, kSums> sums{};
  const std::int64_t size = logits.rows() * logits.cols() / kSums * kSums;
  for (std::int64_t at = 0; at < size; at += kSums) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] += logits.data()[at + static_cast<std::int64_t>(i)];
    }
  }
  return std::accumulate(sums.begin(), sums.end(), 0.0f);
}

template <class Body>
double seconds(Body body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool is_right(const Router& router) {
  const auto logits = logits_for(router.num_experts()).rows(0, 500);
  const Routing actual = router.route(logits), expected = route_reference(router.policy(), logits);
  return actual.topk_idx == expected.topk_idx && actual.topk_weights == expected.topk_weights;
}

void route(benchmark::State& state, const Problem& problem) {
  const Router router(problem.policy, problem.num_experts);
  const Router unconstrained(without_constraint(problem.policy), problem.num_experts);
  if (!is_right(router)) return state.SkipWithError("the result is wrong");

  const auto logits = logits_for(problem.num_experts);
  Outputs out{{logits.rows(), problem.policy.top_k}, {logits.rows(), problem.policy.top_k}};
  double read_s = 1e30, route_s = 1e30, free_s = 1e30;
  for (auto _ : state) {
    read_s = std::min(read_s, seconds([&] { benchmark::DoNotOptimize(sum_all(logits)); }));
    const double s = seconds([&] { router.route_into(logits, out.topk_idx, out.topk_weights); });
    route_s = std::min(route_s, s);
    state.SetIterationTime(s);
    if (!problem.policy.constraint) continue;
    free_s = std::min(
        free_s, seconds([&] { unconstrained.route_into(logits, out.topk_idx, out.topk_weights); }));
  }
  const auto num_tokens = static_cast<double>(logits.rows());
  state.SetItemsProcessed(state.iterations() * logits.rows());
  state.counters["ns_per_token"] = route_s * 1e9 / num_tokens;
  state.counters["read_gbps"] = static_cast<double>(kNumLogits) * sizeof(float) / read_s / 1e9;
  state.counters["ratio_to_read"] = route_s / read_s;
  if (problem.policy.constraint) state.counters["ratio_to_unconstrained"] = route_s / free_s;
}

const bool is_registered = [] {
  for (const Problem& problem : problems()) {
    benchmark::RegisterBenchmark(("BM_Route/" + problem.name).c_str(), route, problem)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace c2r
