// Fits a plan on the even sequences of a trace and counts it beside baselines on the odd ones.
//   compare_plans TRACE              prints the copies of a token, the mean over layers
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "c2r/plan/compare.h"
#include "c2r/plan/make_plan.h"

namespace {

void compare(const c2r::Trace& trace) {
  const c2r::Cluster cluster = {.ranks_per_node = 4};
  const c2r::NamedPlan plan = {
      "plan", c2r::make_plan(trace, {.cluster = cluster}, c2r::SequencePart::kEven).plan};
  c2r::NoProgress progress;
  const c2r::Comparison comparison = c2r::compare(trace, {&plan, 1},
                                                  {.predict = {.traffic = {.cluster = cluster}},
                                                   .on = c2r::SequencePart::kOdd,
                                                   .fit = c2r::SequencePart::kEven,
                                                   .baselines = {"contiguous", "eplb"}},
                                                  progress);
  for (const c2r::ComparisonEntry& entry : comparison.entries) {
    std::printf("%s %.3f\n", entry.name.c_str(),
                c2r::mean_over_layers(entry.prediction.copies_per_token));
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: compare_plans TRACE");
  compare(c2r::Trace(argv[1]));
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
