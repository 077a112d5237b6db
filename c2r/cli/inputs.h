// Reads the routing data of a command: traces, and statistics that were counted before.
#pragma once

#include <string>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/trace/trace.h"

namespace c2r::cli {

/// @returns whether a safetensors file holds statistics instead of a trace
/// @throws Error(kInvalidFile) if it is no safetensors file
bool is_statistics_file(const std::string& path);

struct Inputs {
  CollaborationStatistics statistics;  // the sum over all files
  std::vector<Trace> traces;           // the files that are traces, in the order given
  bool is_all_traces = false;
};

/// Reads traces and statistics files, counts the traces, and adds up all counts.
/// @throws Error(kInvalidFile) if a file is neither
/// @throws Error(kInvalidArgument) if the files are of different models
Inputs read_inputs(const std::vector<std::string>& paths, int num_threads);

}  // namespace c2r::cli
