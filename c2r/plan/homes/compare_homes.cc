// Counts a plan with uniform homes, with those of its signature, and with those of an oracle.
#include "c2r/plan/homes/compare_homes.h"

#include <utility>

#include "c2r/core/error.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/homes/token_homes.h"

namespace c2r {

const HomeSignature& signature_of(const Plan& plan) {
  C2R_REQUIRE(plan.homes && plan.homes->signature, kInvalidArgument,
              "the plan has no signature of homes; make it with --homes signature");
  return *plan.homes->signature;
}

HomesComparison compare_homes(const Plan& plan, const RoutedTokens& tokens,
                              const PredictRequest& request, std::int64_t window, int num_threads,
                              Progress& progress) {
  const HomeSignature& signature = signature_of(plan);
  const auto placements = placements_of(plan);
  PredictRequest uniform = request;
  uniform.traffic.homes = Homes::kUniform;
  HomesComparison comparison{.num_tokens = signature.num_tokens};
  comparison.rows.push_back(
      {.name = "uniform",
       .prediction =
           predict_step("uniform", tokens, placements, uniform, num_threads, progress).prediction});
  const auto add = [&](const std::string& name, const AssignedHomes& homes) {
    comparison.window = homes.window;
    comparison.rows.push_back({.name = name,
                               .prediction = predict_homes(name, tokens, homes, placements, request,
                                                           num_threads, progress)
                                                 .prediction,
                               .imbalance = homes.imbalance,
                               .window_imbalance = homes.window_imbalance});
  };
  add("prefix", assign_homes(signature, tokens, PrefixRuns::kInTurn, window));
  add("earlier turn", assign_homes(signature, tokens, PrefixRuns::kAtHome, window));
  if (const auto& by_ids = signature.token_weights) {
    add("first token ids", assign_homes_by_ids(*by_ids, tokens, signature.num_tokens, window));
    add("all token ids", followed_homes(signature, tokens, window));
  }
  const auto visits = visited_shares(*tokens.trace, sequences_in(*tokens.trace, tokens.ranges),
                                     placements, plan.cluster, num_threads);
  add("all tokens", assign_homes(visits, tokens, 0, window));
  return comparison;
}

}  // namespace c2r
