// Predicts a made plan and what engines do without it, and compares.
#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/prediction/count_plan_internal.h"
#include "c2r/plan/prediction/load_variation.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/scenarios/scenario_report.h"

namespace c2r::internal {
namespace {

constexpr double kLooseBound = 2;  // no sample is too small for it

PredictRequest predict_request_of(const PlanTokens& tokens, const PlanRequest& request) {
  PredictRequest predicted{.traffic = default_traffic(request.cluster)};
  predicted.layer_time = layer_time_of(request.goal, request.cluster);
  if (request.engine) predicted = for_engine(*request.engine, predicted);
  // The only rule for which pair counts say what replicas serve.
  const bool is_from_pairs = tokens.reported.statistics != nullptr;
  if (is_from_pairs) predicted.traffic.replica_rule = ReplicaRule::kLocalFirst;
  return predicted;
}

void add_predictions(const PlanTokens& tokens, const PlanRequest& request, Progress& progress,
                     Plan& plan) {
  progress.begin("predicting");
  const PredictRequest predicted = predict_request_of(tokens, request);
  for (WaterfallStep& step : predict_waterfall(plan, tokens.reported, nullptr, predicted,
                                               request.num_threads, progress)) {
    plan.predictions.push_back(std::move(step.prediction));
  }
}

// What the plan saves of what the first prediction is of, on tokens that it was not fitted on.
std::optional<SavedIntervals> savings_of(const PlanTokens& tokens, const PlanRequest& request,
                                         Progress& progress, const Plan& plan) {
  return resample_savings(tokens.reported, placements_of(plan), predict_request_of(tokens, request),
                          request.num_threads, progress);
}

// @returns the prediction of contiguous experts whose copies are sent as the plan's are
const Prediction& contiguous_prediction(const Plan& plan) {
  return *std::ranges::find(plan.predictions, plan.predictions.back().copy_mode,
                            &Prediction::copy_mode);
}

// @returns the costs of contiguous experts on the fitted tokens, if they make fewer copies than the
//          plan on the reported ones; these costs explain why
std::optional<ContiguousReport> compare_with_contiguous(const PlanTokens& tokens,
                                                        const SearchReport& search,
                                                        const Plan& plan) {
  if (mean_over_layers(contiguous_prediction(plan).copies_per_token) >=
      mean_over_layers(plan.predictions.back().copies_per_token)) {
    return std::nullopt;
  }
  const auto contiguous = contiguous_placements(tokens.header(), plan.cluster);
  const auto num_layers = static_cast<double>(plan.num_layers());
  ContiguousReport report;
  for (std::int64_t layer = 0; layer < plan.num_layers(); ++layer) {
    const auto met = measure_placement(token_sets_of(tokens.fitted, layer), plan.cluster,
                                       search.objective, contiguous[std::size_t(layer)]);
    report.copy_cost += met.copy_cost / num_layers;
    report.planned_copy_cost += search.layers[std::size_t(layer)].copy_cost / num_layers;
    report.max_imbalance = std::max(report.max_imbalance, met.imbalance);
  }
  return report;
}

PlanMoves count_moves(const PlanTokens& tokens, const PlanRequest& request, Progress& progress,
                      const Plan& plan) {
  const PlanGoal& goal = request.goal;
  auto expert_bytes = request.from->expert_bytes;
  if (!expert_bytes && goal.hidden > 0 && goal.intermediate > 0) {
    expert_bytes = 3.0 * 2 * double(goal.hidden) * double(goal.intermediate);  // gated, in bf16
  }
  Prediction before =
      predict_step("running", tokens.reported, placements_for(tokens.reported, request.from->plan),
                   predict_request_of(tokens, request), request.num_threads, progress)
          .prediction;
  return moves_of(request.from->plan, plan, std::move(before), plan.predictions.back(), goal.hidden,
                  expert_bytes);
}

// @returns what EPLB does with the plan's slots. [num_layers], or empty: it cannot place every
//          number of experts
std::vector<Placement> by_eplb(const PlanTokens& tokens, const PlanRequest& request) {
  NoProgress silent;
  PlanRequest eplb = request;
  eplb.method = "eplb";
  try {
    return placements_by_baseline(tokens, eplb, {}, silent);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnsupported) throw;
    return {};
  }
}

// Predicts what engines do without the plan, with its slots, and compares.
// @param eplb of by_eplb()
PlanCheck check_made(const PlanTokens& tokens, const PlanRequest& request, Progress& progress,
                     const SearchReport& search, std::span<const Placement> eplb,
                     const Plan& plan) {
  std::vector<Prediction> baselines = {contiguous_prediction(plan)};
  baselines[0].placement = "contiguous";
  if (!eplb.empty()) {
    baselines.push_back(predict_step("eplb", tokens.reported, eplb,
                                     predict_request_of(tokens, request), request.num_threads,
                                     progress)
                            .prediction);
  }
  const auto bound =
      search.unseen_max_imbalance ? search.unseen_max_imbalance : search.objective.max_imbalance;
  const bool is_unseen = tokens.fit != name_of(SequencePart::kAll);
  PlanCheck check = check_predictions(plan.predictions.back(), std::move(baselines), plan.cluster,
                                      search.objective, is_unseen ? bound : std::nullopt);
  if (!bound || *bound >= kLooseBound) return check;
  const auto variation = load_variation(tokens.fitted, placements_of(plan), request.num_threads);
  if (variation) {
    check.sample_warning =
        sample_warning(*variation, *bound, request.goal.bound_on == BoundOn::kUnseen);
  }
  return check;
}

}  // namespace

void count_plan(const PlanTokens& tokens, const PlanRequest& request, TimeLeft& left,
                MadePlan& made) {
  Plan& plan = made.plan;
  Progress& progress = left.progress();
  left.run("the predictions", [&] { add_predictions(tokens, request, progress, plan); });
  if (request.from && !plan.predictions.empty()) {
    left.run("when moves pay", [&] { made.moves = count_moves(tokens, request, progress, plan); });
  }
  std::optional<std::vector<Placement>> eplb;
  const auto placed_by_eplb = [&]() -> const std::vector<Placement>& {
    if (!eplb) eplb = by_eplb(tokens, request);
    return *eplb;
  };
  if (made.search && !plan.predictions.empty()) {
    left.run("the comparison with contiguous experts and EPLB", [&] {
      made.search->contiguous = compare_with_contiguous(tokens, *made.search, plan);
      made.check = check_made(tokens, request, progress, *made.search, placed_by_eplb(), plan);
    });
  }
  if (!tokens.scenarios.empty()) {
    left.run("the scenarios", [&] {
      made.scenarios =
          predict_scenarios(tokens.fitted, tokens.scenarios, placements_of(plan), placed_by_eplb(),
                            predict_request_of(tokens, request), request.num_threads, progress);
    });
  }
  if (plan.homes) {
    left.run("what homes save", [&] {
      made.homes = compare_homes(plan, tokens.reported, predict_request_of(tokens, request), 0,
                                 request.num_threads, progress);
    });
  }
  if (tokens.fit != name_of(SequencePart::kAll)) {
    left.run("the intervals of savings",
             [&] { made.saved = savings_of(tokens, request, progress, plan); });
  }
  std::ranges::copy(left.left_out(), std::back_inserter(made.left_out));
}

}  // namespace c2r::internal
