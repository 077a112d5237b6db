// Prints with how many others an expert works together, for the trace that the argument names.
#include <fmt/format.h>

#include "c2r/collaboration/collaboration.h"
#include "c2r/collaboration/metrics.h"
#include "c2r/core/error.h"

int main(int argc, char** argv) try {
  if (argc != 2)
    throw c2r::Error(c2r::ErrorCode::kInvalidArgument, "usage: count_collaboration TRACE");
  const c2r::Trace trace(argv[1]);
  c2r::NoProgress progress;
  const auto statistics = c2r::count_collaboration(trace, /*num_threads=*/2, progress);
  const auto metrics = c2r::model_metrics(statistics);
  fmt::print("an expert works with {:.1f} others\n",
             metrics.collaborators->effective_collaborators);
} catch (const std::exception& e) {
  fmt::print(stderr, "{}\n", e.what());
  return 1;
}
