// The routing data that commands start from: traces, or statistics counted earlier.
#pragma once

#include <string>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/trace/trace.h"

namespace c2r::cli {

/// Whether a safetensors file holds statistics, and no trace.
/// @throws Error(kInvalidFile) if it is no safetensors file
bool is_statistics_file(const std::string& path);

struct Inputs {
  CollaborationStatistics statistics;  // of all files together
  std::vector<Trace> traces;           // the files that are traces, in the order given
  bool is_all_traces = false;
};

/// Reads each file, whichever of the two it is, and adds up what it says.
/// @throws Error if one is neither, or they are of different models
Inputs read_inputs(const std::vector<std::string>& paths, int num_threads);

}  // namespace c2r::cli
