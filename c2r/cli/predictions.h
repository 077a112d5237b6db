// What the commands about plans share: the cluster option, the tokens of a part of a trace, and
// predictions as a table and JSON.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/io/json.h"
#include "c2r/placement/volume.h"
#include "c2r/plan/plan.h"
#include "c2r/routing/sequence_split.h"
#include "c2r/routing/trace.h"

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

/// There and back, the mean over layers.
double wire_bytes_per_token(const Prediction& step, const CopyFormat& format);

/// Means over layers, one line a step, and each step's copies relative to the first's. With a
/// format also the bytes of a token, dispatch and combine together.
std::string prediction_table(std::span<const Prediction> steps,
                             const std::optional<CopyFormat>& format);

/// The same, and each layer's numbers.
Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format);

/// The exact counts of one step, to be divided by its `denominator`: of each layer, copies by kind
/// of link, copies and choices of each rank and, with a format, bytes in each direction.
Json volumes_json(std::span<const Volume> volumes, const std::optional<CopyFormat>& format);

}  // namespace c2r::cli
