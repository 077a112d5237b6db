// Routes the tokens of a trace by another rule, from the logits that the trace has.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/routed_tokens.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

enum class RerouteRule {
  kTopT,           // the constraint: the plan's lists, of which the first so many entries count
  kDeviceLimited,  // experts of at most so many ranks of the plan (choose_in_best_groups())
};

/// A rule and its number: "top-t:6" or "device-limited:3".
struct Rerouting {
  RerouteRule rule = RerouteRule::kTopT;
  std::int32_t limit = 0;

  std::string name() const;
};

/// @returns the rule of that name
/// @throws Error(kInvalidArgument) for any other name
Rerouting parse_rerouting(std::string_view name);

/// Tokens with the choices that they would make by another rule.
struct ReroutedTokens {
  Trace trace;  // in memory; tokens that were not routed again have no choices
  std::vector<TokenRange> ranges;
  // Tokens, each counted in every layer, and those of them whose recorded choice was not the top-k
  // of their logits: count_other_choices().
  std::int64_t num_choices = 0, num_other_choices = 0;

  /// @returns the same tokens as before; they borrow the trace
  RoutedTokens tokens() const;
};

/// Routes the tokens again, in each layer from the logits that were recorded there. In a model that
/// follows the rule, the choices of a layer change the logits of later layers.
/// @param tokens of a trace that has logits
/// @param plan whose lists or placements the rule looks at, for the model of the trace
/// @throws Error(kInvalidArgument) if the tokens are no trace or have no logits, if the plan is for
///         another model, has no lists or shorter ones, or has replicas where ranks are limited, or
///         if so few ranks do not hold top_k experts
/// @throws Error(kInvalidFile) if the trace holds an invalid choice or logit
///
/// Cost: reads the logits of the tokens once; memory of 4 bytes for each choice of the trace.
ReroutedTokens reroute(const RoutedTokens& tokens, const Plan& plan, const Rerouting& rerouting,
                       int num_threads, Progress& progress);

/// What is predicted of tokens that were routed again, and the counts of ReroutedTokens.
struct ReroutedStep {
  WaterfallStep step;
  std::int64_t num_choices = 0, num_other_choices = 0;
};

/// reroute(), and predict_constrained() of the result under the same plan.
/// @param first the step that the result is compared with
/// @returns a step with the name of the rule
/// @throws as these two
ReroutedStep predict_rerouted(const Rerouting& rule, const RoutedTokens& tokens, const Plan& plan,
                              const WaterfallStep& first, const PredictRequest& request,
                              int num_threads, Progress& progress);

}  // namespace c2r
