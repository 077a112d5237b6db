// Writes predictions as a table and as JSON.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/predict.h"

namespace c2r {

/// @returns the cell of the column "saved": how much less a cost is than that of the base
std::string saved_text(double cost, double base);

/// @returns the mean of a column of copies of the prediction; "-" where copies are unknown
std::string copies_text(const Prediction& prediction, std::span<const double> column);
/// @returns the kB of a token on the wire in one layer; "-" where copies are unknown
std::string kilobytes_text(const Prediction& prediction, const CopyFormat& format);

/// @param base the name of what savings are measured against
/// @returns the line that explains the column "saved"
std::string saved_line(const Cluster& cluster, std::string_view base);

/// @returns a table of means over layers with one line for each step, and the share of the first
///          step's copies that each step saves. With a format it has the bytes of a token, dispatch
///          and combine together
std::string prediction_table(std::span<const Prediction> steps, const Cluster& cluster,
                             const std::optional<CopyFormat>& format);

/// @returns a table of the predicted times of each step, dispatch, experts and combine apart; empty
///          if no times were predicted
std::string time_table(std::span<const WaterfallStep> steps, const LayerTimeOptions& options);

/// @returns the same with the numbers of each layer
Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format);

/// @returns the predictions of a waterfall, each with its exact counts
Json waterfall_json(std::span<const WaterfallStep> steps, const std::optional<CopyFormat>& format);

/// @returns the exact counts of one step, to be divided by its `denominator`: of each layer the
///          copies by kind of link, the copies and choices of each rank and, with a format, the
///          bytes in each direction
Json volumes_json(std::span<const Volume> volumes, const std::optional<CopyFormat>& format);

/// @returns the predictions of the steps, in their order
std::vector<Prediction> predictions_of(std::span<const WaterfallStep> steps);

}  // namespace c2r
