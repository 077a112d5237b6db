// Predictions as a table and as JSON.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/predict.h"

namespace c2r {

/// @returns what the column "saved" says of a cost, relative to the first line's
std::string saved_text(double cost, double first);

/// @param first the name of the first line
/// @returns the line that explains the column "saved"
std::string saved_line(const Cluster& cluster, std::string_view first);

/// Means over layers, one line a step, and what each step saves of the first's copies. With a
/// format also the bytes of a token, dispatch and combine together.
std::string prediction_table(std::span<const Prediction> steps, const Cluster& cluster,
                             const std::optional<CopyFormat>& format);

/// The same, and each layer's numbers.
Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format);

/// The predictions of a waterfall, each with its exact counts.
Json waterfall_json(std::span<const WaterfallStep> steps, const std::optional<CopyFormat>& format);

/// The exact counts of one step, to be divided by its `denominator`: of each layer, copies by kind
/// of link, copies and choices of each rank and, with a format, bytes in each direction.
Json volumes_json(std::span<const Volume> volumes, const std::optional<CopyFormat>& format);

/// @returns the predictions of the steps, in their order
std::vector<Prediction> predictions_of(std::span<const WaterfallStep> steps);

}  // namespace c2r
