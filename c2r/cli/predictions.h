// What the commands about plans share: the cluster option, the tokens of a part of a trace, and
// predictions as a table and JSON.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/json.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/plan.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r::cli {

inline constexpr const char* kClusterHelp =
    "nodes x ranks per node, such as 1x8 or 2x4, or a JSON file with bandwidths "
    "(docs/formats.md)";

/// Which tokens were reported on after fitting `part`: "t.safetensors, odd", or "..., all (fitted)"
/// where they are the fitted ones.
std::string reported_tokens(const std::string& trace, SequencePart fitted);

/// The tokens of a part of the trace.
/// @throws Error(kInvalidArgument) if there are none, of which nothing can be said
std::vector<TokenRange> tokens_of(const Trace& trace, SequencePart part);

/// Over layers; 0 without any.
double mean(const std::vector<double>& values);

/// The copies on the wire, where one between nodes counts as many as it takes longer than one
/// within a node: what the optimizer minimizes. The mean over layers.
double link_cost_per_token(const Prediction& step, const Cluster& cluster);

/// What the column "saved" says of a cost, relative to the first line's, and the line that explains
/// it. @param first the name of the first line
std::string saved_text(double cost, double first);
std::string saved_line(const Cluster& cluster, std::string_view first);

/// There and back, the mean over layers.
double wire_bytes_per_token(const Prediction& step, const CopyFormat& format);

/// Means over layers, one line a step, and what each step saves of the first's copies. With a
/// format also the bytes of a token, dispatch and combine together.
std::string prediction_table(std::span<const Prediction> steps, const Cluster& cluster,
                             const std::optional<CopyFormat>& format);

/// The same, and each layer's numbers.
Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format);

/// The exact counts of one step, to be divided by its `denominator`: of each layer, copies by kind
/// of link, copies and choices of each rank and, with a format, bytes in each direction.
Json volumes_json(std::span<const Volume> volumes, const std::optional<CopyFormat>& format);

}  // namespace c2r::cli
