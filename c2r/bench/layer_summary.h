// What a layer benchmark says of a variant: medians, rates and bounds from its timings and bytes.
#pragma once

#include <cstdint>

#include "c2r/bench/bench_layer.h"

namespace c2r {

struct LayerSummary {
  double median_s = 0, min_s = 0;  // of the rounds
  double compute_s = 0;            // of the fastest round without any exchange
  // The least time that the links need for dispatch and combine, at the cluster's bandwidths: that
  // of the busiest link.
  double links_s = 0;
  double ratio = 0;       // of the medians, to the baseline's
  double best_ratio = 0;  // of the fastest rounds, to the baseline's
  double exchange_s = 0;  // of the slowest rank: all phases that compute no expert
  double bytes_per_s =
      0;  // what the busiest rank sends or receives in both directions / exchange_s
  double busiest_flop = 0;          // of the rank that computes most rows
  std::int64_t dispatch_bytes = 0;  // of all links
  std::int64_t combine_bytes = 0;   // of all links
  std::int64_t metadata_bytes = 0;  // of all links
};

/// @param num_tokens of each rank
/// @param baseline the result of the variant that ratios refer to
LayerSummary summarize(const LayerProblem& problem, std::int64_t num_tokens,
                       const VariantResult& result, const VariantResult& baseline);

}  // namespace c2r
