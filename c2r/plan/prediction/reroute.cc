// Chooses again from logits, in chunks of tokens on several threads.
#include "c2r/plan/prediction/reroute.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <functional>

#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/routing/logit_choices.h"
#include "c2r/routing/policy.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

constexpr std::string_view kTopTPrefix = "top-t:", kDeviceLimitedPrefix = "device-limited:";

// Chooses the experts of tokens. [num_tokens, num_experts] -> [num_tokens, top_k]
using Chooser = std::function<Matrix<ExpertId>(MatrixView<const float> logits)>;

Chooser constrained_chooser(const Plan& plan, const PlanLayer& layer, std::int32_t top_t) {
  C2R_REQUIRE(plan.top_t, kInvalidArgument,
              "the plan has no lists of collaborators: make it with c2r plan --top-t {} or more",
              top_t);
  C2R_REQUIRE(
      top_t <= layer.collaborators.cols(), kInvalidArgument,
      "the plan lists {} collaborators of an expert in layer {}, but {} are asked for: make "
      "it with c2r plan --top-t {}",
      layer.collaborators.cols(), layer.layer_index, top_t, top_t);
  const Router router(
      {.scoring = Scoring::kSoftmaxOverChosen,
       .top_k = plan.top_k,
       .constraint = CollaborationConstraint{.top_t = top_t, .collaborators = layer.collaborators}},
      plan.num_experts);
  return [router](MatrixView<const float> logits) { return router.route(logits).topk_idx; };
}

Chooser device_limited_chooser(const Plan& plan, const PlanLayer& layer, std::int32_t max_ranks) {
  GroupLimit limit{.num_groups = plan.cluster.ep_size(), .top_groups = max_ranks};
  try {
    for (const RankId rank : rank_of(layer.placement)) {
      limit.group_of_expert.push_back(static_cast<std::int32_t>(rank));
    }
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "{}{}: layer {}: {}", kDeviceLimitedPrefix, max_ranks,
              layer.layer_index, e.what());
  }
  // Checked before any logit is read.
  choose_in_best_groups(Matrix<float>(0, plan.num_experts), limit, plan.top_k);
  return [limit, top_k = plan.top_k](MatrixView<const float> logits) {
    return choose_in_best_groups(logits, limit, top_k);
  };
}

std::vector<Chooser> choosers_of(const Plan& plan, const Rerouting& rerouting) {
  std::vector<Chooser> choosers;
  for (const PlanLayer& layer : plan.layers) {
    choosers.push_back(rerouting.rule == RerouteRule::kTopT
                           ? constrained_chooser(plan, layer, rerouting.limit)
                           : device_limited_chooser(plan, layer, rerouting.limit));
  }
  return choosers;
}

void check_has_logits(const RoutedTokens& tokens) {
  C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
              "{} holds counts, from which no token can be routed again: give a trace with logits",
              tokens.name);
  C2R_REQUIRE(tokens.trace->has_logits(), kInvalidArgument,
              "{} has no logits to route from: import a recording that has them (megatron), or "
              "record the model again under the constraint and give that with --constrained",
              tokens.trace->path());
}

}  // namespace

std::string Rerouting::name() const {
  return fmt::format("{}{}", rule == RerouteRule::kTopT ? kTopTPrefix : kDeviceLimitedPrefix,
                     limit);
}

Rerouting parse_rerouting(std::string_view name) {
  for (const RerouteRule rule : {RerouteRule::kTopT, RerouteRule::kDeviceLimited}) {
    const auto prefix = rule == RerouteRule::kTopT ? kTopTPrefix : kDeviceLimitedPrefix;
    if (!name.starts_with(prefix)) continue;
    const auto limit = parse_integer(name.substr(prefix.size()));
    if (limit && 1 <= *limit && *limit <= kMaxRanks) {
      return {.rule = rule, .limit = static_cast<std::int32_t>(*limit)};
    }
  }
  C2R_THROW(kInvalidArgument, "a rule is {}T or {}M, with a number of at least 1; not '{}'",
            kTopTPrefix, kDeviceLimitedPrefix, shown(name));
}

RoutedTokens ReroutedTokens::tokens() const {
  return {.trace = &trace, .ranges = ranges, .name = trace.path()};
}

ReroutedTokens reroute(const RoutedTokens& tokens, const Plan& plan, const Rerouting& rerouting,
                       int num_threads, Progress& progress) {
  check_has_logits(tokens);
  const Trace& trace = *tokens.trace;
  check_fits(plan, trace.header(), tokens.name);
  const auto choosers = choosers_of(plan, rerouting);
  const std::int64_t top_k = trace.header().top_k;
  std::vector<Matrix<ExpertId>> chosen(choosers.size(), {trace.num_tokens(), top_k, kNoExpert});
  const auto pieces = pieces_of(tokens.ranges);
  const std::int64_t num_pieces = std::ssize(pieces), num_tasks = std::ssize(chosen) * num_pieces;
  std::atomic<std::int64_t> num_choices = 0, num_other = 0, num_done = 0;
  progress.begin("routing tokens again");
  parallel_for(num_tasks, num_threads, [&](std::int64_t task, int thread) {
    const std::int64_t layer = task / num_pieces;
    const auto [begin, end] = pieces[static_cast<std::size_t>(task % num_pieces)];
    const Matrix<float> logits = trace.logits(layer, begin, end);
    const Matrix<ExpertId> recorded = trace.topk_idx(layer, begin, end);
    const auto at_layer = static_cast<std::size_t>(layer);
    const Matrix<ExpertId> again = choosers[at_layer](logits);
    // A choice that was dropped or masked stays so.
    std::ranges::transform(
        recorded.all(), again.all(), chosen[at_layer].all().begin() + begin * top_k,
        [](ExpertId before, ExpertId now) { return before == kNoExpert ? before : now; });
    num_choices += end - begin;
    num_other += count_other_choices(recorded, logits);
    const std::int64_t done = ++num_done;
    if (thread == 0) progress.update(done, num_tasks);
  });
  progress.update(num_tasks, num_tasks);
  const std::vector<MatrixView<const ExpertId>> views(chosen.begin(), chosen.end());
  return {.trace = Trace(trace.header(), views, trace.sequence_starts(),
                         fmt::format("{}, routed by {}", tokens.name, rerouting.name())),
          .ranges = tokens.ranges,
          .num_choices = num_choices,
          .num_other_choices = num_other};
}

ReroutedStep predict_rerouted(const Rerouting& rule, const RoutedTokens& tokens, const Plan& plan,
                              const WaterfallStep& first, const PredictRequest& request,
                              int num_threads, Progress& progress) {
  const ReroutedTokens rerouted = reroute(tokens, plan, rule, num_threads, progress);
  const RoutedTokens again = rerouted.tokens();
  return {.step = predict_constrained(rule.name(), {.tokens = again, .plan = plan}, first, request,
                                      num_threads, progress),
          .num_choices = rerouted.num_choices,
          .num_other_choices = rerouted.num_other_choices};
}

}  // namespace c2r
