// All numbers of a report on a plan, as one JSON value.
//
//   {"format": "c2r-report", "version": 1, "c2r_version": "...",
//    "trace": {"name", "part", "model", "num_tokens", "num_sequences", "num_layers", "num_experts",
//              "top_k"},
//    "plan": {"name", "method", "max_imbalance" or null, "fitted_on": [...], "slots_per_rank"},
//    "cluster": {...}, "hidden": N or null, "batch_tokens": N or null,
//    "engine": {...},                  optional, as `c2r simulate --engine --json`, with the
//    "title"
//                                      of the engine, the "kernel" that the answer is about and,
//                                      if it loads placements, "export_target" and "rollback"
//    "answer": {"is_advised", "sentence", "why", "how_sure", "reasons": [...], "cautions": [...]},
//    "analysis": {...},                as `c2r analyze --json`, of the counted tokens, without
//                                      "experts", whose loads are the diagonals of "coactivation"
//    "steps": [...],                   as `c2r simulate --json`
//    "resampled": {...} or null,       what "after" saves of "before", as `c2r simulate --json`
//    "links": {"before": [[...]], "after": [[...]]},     copies a token and layer, [source][target]
//    "drift": [{"num_tokens", "before", "after", "imbalance_before", "imbalance_after"}],
//                                      in the order of the trace; with predicted times also
//                                      "time_before_s", "time_after_s"
//    "sequence": {"index", "num_tokens", "before": [[...]], "after": [[...]]},
//                                      copies, [layer][rank]
//    "layers": [{"layer_index", "rank_of_expert": [...], "order": [...], "coactivation": "..."}],
//    "comparison": {...},              optional, as `c2r compare --json`
//    "constraint": [{"top_t": T or null, "score": {...}, "traffic": {...}}],   optional, by T: what
//                                      read_scores() and read_constrained() return; null: without
//                                      a constraint, and the traffic is the plan's
//    "measured": {...}}                optional, what read_layer_bench() returns
//
// "before" is what the engine sends today or, without an engine, the step "deduplication"
// (contiguous experts, and copies sent as the plan's are); "after" is the plan's last step without
// a constraint. `coactivation` is the upper triangle of the counts, diagonal included, row by row,
// each count as LEB128, all in base64: 256 experts in 58 layers are 20 MB as decimal numbers, 5 MB
// so.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/report_inputs.h"

namespace c2r {

inline constexpr std::int32_t kReportVersion = 1;

struct ReportRequest {
  std::string plan_name, trace_name;
  SequencePart part = SequencePart::kAll;    // the sequences that are counted
  PredictRequest predict;                    // of the engine, if there is one: for_engine()
  std::optional<EngineBackend> engine;       // whose traffic the answer is about
  std::optional<CopyFormat> format;          // then there are bytes, too
  std::optional<Json> comparison;            // read_comparison()
  std::vector<ConstraintInput> scores;       // read_scores()
  std::vector<ConstraintInput> constrained;  // read_constrained(), of each T
  std::optional<Json> bench;                 // read_layer_bench(), on as many ranks
  int num_threads = 1;
};

/// Counts the plan on a part of the trace in every way that the report shows.
/// @throws Error(kInvalidArgument) if the plan is for another model, the part has no tokens, a T is
///         given twice, scores are of different tokens, or a benchmark is of another number of
///         ranks
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
///
/// Cost: twice predict_waterfall(), once count_pairs() of the counted tokens, resample_prediction()
/// twice and, with an engine, predict_engine_traffic(); memory
/// num_layers * num_experts^2 * 8 bytes.
Json report_data(const Plan& plan, const Trace& trace, const ReportRequest& request,
                 Progress& progress);

/// The step of a report that its "before" is, and that its "after" is.
const Json& step_before(const Json& report);
const Json& step_after(const Json& report);

/// @returns the mean over layers of a column of a step
double mean_of(const Json& step, const char* column);

}  // namespace c2r
