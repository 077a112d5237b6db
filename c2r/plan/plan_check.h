// Says whether a plan is worth following on the tokens that it reports: compares it with what
// engines do without a plan, and with its own bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/placement/measure.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// The imbalance of a placement over the layers of a model, beside the bound that it was to keep.
struct LayerImbalance {
  double mean = 1, worst = 1;           // over layers
  std::optional<double> max_imbalance;  // the bound on each layer, if there is one
  std::vector<std::int64_t> over;       // positions of the layers above the bound, ascending

  bool operator==(const LayerImbalance&) const = default;
};

/// @param imbalance of each layer, such as Prediction::imbalance. [num_layers]
/// @returns its mean and its largest value, 1 of no layers, and the layers above the bound by more
///          than rounding
LayerImbalance layer_imbalance(std::span<const double> imbalance,
                               std::optional<double> max_imbalance);

/// @returns "rank imbalance 1.092 (worst layer 1.149)"
std::string imbalance_text(const LayerImbalance& met);

/// @returns the bound on the imbalance of each layer that the plan was made with, from its
///          provenance; nothing if it had none, as an imported plan has
std::optional<double> max_imbalance_of(const Plan& plan);

/// @returns the model's own index of each layer of the plan. [num_layers]
std::vector<std::int32_t> layer_indices_of(const Plan& plan);

/// @param layers positions, ascending
/// @param layer_indices the model's own. [num_layers]
/// @returns the model's indices of `layers`, such as "3, 5-8"; layers whose indices follow each
///          other are joined; "" of none
std::string layers_text(std::span<const std::int64_t> layers,
                        std::span<const std::int32_t> layer_indices);

/// How a plan does on the reported tokens.
struct PlanCheck {
  std::vector<Prediction> baselines;    // contiguous, eplb: of the tokens that the plan reports
  std::optional<std::string> better;    // the best of the baselines that are better than the plan
  std::optional<LayerImbalance> bound;  // where the objective has one
  // What is wrong with the fitted sequences as a sample of others: sample_warning(); often empty.
  std::string sample_warning;
};

/// Compares predictions of the same tokens. A baseline is better than the plan
///   if its predicted time is less, where times are predicted;
///   else, for Goal::kImbalance, if its imbalance is less and its copies are no more than those of
///   the plan or the bound on them;
///   else if it costs less, and its imbalance is no more than that of the plan or the bound on it.
/// All numbers are means over layers; copies are link_cost_per_token().
/// @param planned the last step of the plan's predictions
/// @param bound on the imbalance that the user asked for; less than what was fitted with
///        BoundOn::kUnseen
PlanCheck check_predictions(const Prediction& planned, std::vector<Prediction> baselines,
                            const Cluster& cluster, const PlacementObjective& objective,
                            std::optional<double> bound);

/// @param layer_indices the model's own, to name layers. [num_layers]
/// @returns one line of what is wrong and what to do, without a line feed; empty if nothing is
std::string warning_text(const PlanCheck& check, const Prediction& planned,
                         std::span<const std::int32_t> layer_indices);

}  // namespace c2r
