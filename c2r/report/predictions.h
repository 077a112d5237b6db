// Writes predictions as a table and as JSON.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/json.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/plan_check.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {

/// The layers of predictions and the bound that their imbalance is judged by.
struct JudgedLayers {
  std::optional<double> max_imbalance = {};      // none: no layer is over
  std::vector<std::int32_t> layer_indices = {};  // the model's own. [num_layers]
};

/// @returns the layers of a plan and its bound
JudgedLayers judged_layers_of(const Plan& plan);

/// @returns the cell of the column "saved": how much less a cost is than that of the base
std::string saved_text(double cost, double base);

/// @returns the mean of a column of copies of the prediction; "-" where copies are unknown
std::string copies_text(const Prediction& prediction, std::span<const double> column);
/// @returns the kB of a token on the wire in one layer; "-" where copies are unknown
std::string kilobytes_text(const Prediction& prediction, const CopyFormat& format);

/// @param base the name of what savings are measured against
/// @returns the line that explains the column "saved"
std::string saved_line(const Cluster& cluster, std::string_view base);

/// @returns the cells of a row: the mean of the imbalance over layers, the worst layer and, where
///          layers are judged, how many are over the bound, such as "10/24"
std::vector<std::string> imbalance_cells(const Prediction& prediction, const JudgedLayers& layers);
/// @returns the headers of these columns
std::vector<std::string> imbalance_headers(const JudgedLayers& layers);
/// @returns a line that names the layers of a placement over the bound, such as "over in
///          placement: 2 of 24 layers are above the bound of 1.1 on imbalance: 3, 7"; empty if
///          there are none
std::string over_line(const Prediction& prediction, const JudgedLayers& layers);

/// @returns a table of means over layers with one line for each step, and the share of the first
///          step's copies that each step saves. With a format it has the bytes of a token, dispatch
///          and combine together. Below it, the layers of the plan's last step over the bound
std::string prediction_table(std::span<const Prediction> steps, const Cluster& cluster,
                             const std::optional<CopyFormat>& format, const JudgedLayers& layers);

/// @param predictions of the same layers, not empty
/// @returns a table with a row for each layer and a column for each prediction, with cells such as
///          "2.214 @ 1.132 *": copies a token @ imbalance, and a star above the bound
std::string layers_table(std::span<const Prediction> predictions, const JudgedLayers& layers);

/// @returns a table of the predicted times of each step, dispatch, experts and combine apart; empty
///          if no times were predicted
std::string time_table(std::span<const WaterfallStep> steps, const LayerTimeOptions& options);

/// @returns the same with the numbers of each layer, and "mean_imbalance", "worst_imbalance" and,
///          where layers are judged, "max_imbalance" and "layers_over": the model's indices of the
///          layers above it
Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format,
                      const JudgedLayers& layers = {});

/// @returns the predictions of a waterfall, each with its exact counts
Json waterfall_json(std::span<const WaterfallStep> steps, const std::optional<CopyFormat>& format,
                    const JudgedLayers& layers = {});

/// @returns the exact counts of one step, to be divided by its `denominator`: of each layer the
///          copies by kind of link, the copies and choices of each rank and, with a format, the
///          bytes in each direction
Json volumes_json(std::span<const Volume> volumes, const std::optional<CopyFormat>& format);

/// @returns the predictions of the steps, in their order
std::vector<Prediction> predictions_of(std::span<const WaterfallStep> steps);

}  // namespace c2r
