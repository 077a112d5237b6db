// Reads traces and statistics, counts the traces, and adds up the counts.
#include "c2r/cli/inputs.h"

#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/io/safetensors.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r::cli {

bool is_statistics_file(const std::string& path) {
  const SafetensorsFile file(path);
  const auto format = file.metadata().find("format");
  return format != file.metadata().end() && format->second == kStatisticsFormat;
}

Inputs read_inputs(const std::vector<std::string>& paths, int num_threads) {
  Inputs inputs;
  for (const std::string& path : paths) {
    CollaborationStatistics statistics;
    if (is_statistics_file(path)) {
      statistics = read_statistics(path);
    } else {
      inputs.traces.emplace_back(path);
      ProgressLine progress("counting " + path);
      statistics = count_collaboration(inputs.traces.back(), num_threads, progress);
    }
    if (&path == &paths.front()) {
      inputs.statistics = std::move(statistics);
      continue;
    }
    try {
      merge(statistics, inputs.statistics);
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: {}", path, e.what());
    }
  }
  inputs.is_all_traces = inputs.traces.size() == paths.size();
  return inputs;
}

}  // namespace c2r::cli
