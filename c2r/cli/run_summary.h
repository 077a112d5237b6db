// What rank 0 prints at the end of a run on ranks: its speed, its traffic and its memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "c2r/engine/memory.h"
#include "c2r/engine/ranks/run_traffic.h"

namespace c2r::cli {

/// @returns lines with tokens per second, and the bytes that a token takes in a layer: of rows
///          beside what the plan predicts, on the link with most, and of all else
std::string traffic_text(const RunTraffic& run, const std::optional<PredictedTraffic>& predicted);

/// @returns the object {"run": {...}} of the same, with the bytes of every link, in one line
std::string traffic_json(const RunTraffic& run, const std::optional<PredictedTraffic>& predicted);

/// Prints the text on standard error, or the JSON as a line on standard output.
void print_traffic(const RunTraffic& run, const std::optional<PredictedTraffic>& predicted,
                   bool as_json);

/// Prints a line for each rank on standard error.
/// @param ranks [ep_size]
void print_memory(const std::vector<RankMemory>& ranks);

}  // namespace c2r::cli
