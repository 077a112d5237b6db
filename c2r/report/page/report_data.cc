// Counts everything that a report shows, by the functions that c2r analyze and c2r simulate call.
#include "c2r/report/page/report_data.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include "c2r/collaboration/metrics.h"
#include "c2r/collaboration/ordering.h"
#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/io/base64.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/plan_check.h"
#include "c2r/plan/prediction/resample.h"
#include "c2r/report/analysis.h"
#include "c2r/report/engine_traffic.h"
#include "c2r/report/page/answer.h"
#include "c2r/report/predictions.h"
#include "c2r/report/savings.h"

namespace c2r {
namespace {

constexpr std::int64_t kDriftParts = 10;

void append_leb128(std::uint64_t value, std::string& bytes) {
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(0x80 | (value & 0x7F));
  bytes += static_cast<char>(value);
}

std::string packed_counts(const CollaborationMatrix& counts) {
  std::string bytes;
  for (std::int64_t a = 0; a < counts.rows(); ++a) {
    for (std::int64_t b = a; b < counts.cols(); ++b) {
      append_leb128(static_cast<std::uint64_t>(counts(a, b)), bytes);
    }
  }
  return encode_base64(std::as_bytes(std::span(bytes)));
}

// The tokens of the ranges in `num_parts` parts that follow each other, as long as each other.
std::vector<std::vector<TokenRange>> parts_in_order(std::span<const TokenRange> ranges,
                                                    std::int64_t num_parts) {
  const std::int64_t total = num_tokens_in(ranges);
  std::vector<std::vector<TokenRange>> parts(static_cast<std::size_t>(num_parts));
  std::int64_t done = 0;
  for (TokenRange range : ranges) {
    while (range.begin < range.end) {
      const std::int64_t part = done * num_parts / total;
      const std::int64_t part_end = ((part + 1) * total + num_parts - 1) / num_parts;
      const std::int64_t count = std::min(range.end - range.begin, part_end - done);
      at(parts, part).push_back({range.begin, range.begin + count});
      range.begin += count;
      done += count;
    }
  }
  return parts;
}

// The two steps that the report compares.
struct BeforeAfter {
  const WaterfallStep& before;
  const WaterfallStep& after;
};

bool is_before(std::string_view step) {
  return step == "deduplication" || step == "all-gather";
}

BeforeAfter before_after(std::span<const WaterfallStep> steps) {
  const auto before = std::ranges::find_if(
      steps, [](const WaterfallStep& step) { return is_before(step.prediction.placement); });
  return {before == steps.end() ? steps.front() : *before, steps.back()};
}

// Copies a token and layer from each rank to each. [ep_size][ep_size]
Json links_json(std::span<const Volume> volumes) {
  const std::int64_t ep_size = volumes[0].link_copies.rows();
  Json rows = Json::array();
  for (std::int64_t src = 0; src < ep_size; ++src) {
    Json row = Json::array();
    for (std::int64_t dst = 0; dst < ep_size; ++dst) {
      double sum = 0;
      for (const Volume& volume : volumes) sum += volume.per_token(volume.link_copies(src, dst));
      row.push_back(sum / static_cast<double>(volumes.size()));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// Copies that each rank receives, those of its own tokens included. [num_layers][ep_size]
Json copies_of_ranks_json(std::span<const Volume> volumes) {
  Json layers = Json::array();
  for (const Volume& volume : volumes) {
    Json row = Json::array();
    for (std::int64_t dst = 0; dst < volume.link_copies.cols(); ++dst) {
      std::int64_t copies = 0;
      for (std::int64_t src = 0; src < volume.link_copies.rows(); ++src) {
        copies += volume.link_copies(src, dst);
      }
      row.push_back(volume.per_token(copies));
    }
    layers.push_back(std::move(row));
  }
  return layers;
}

class Counting {
 public:
  Counting(const Plan& plan, const Trace& trace, const ReportRequest& request, Progress& progress)
      : plan_(plan), trace_(trace), request_(request), progress_(progress) {}

  std::vector<WaterfallStep> steps(std::vector<TokenRange> ranges) {
    return predict_waterfall(plan_, tokens_in(std::move(ranges)), nullptr, request_.predict,
                             request_.num_threads, progress_);
  }

  // What "after" saves of "before", which both send copies as the request says; null without
  // several sequences.
  Json resampled(const std::vector<TokenRange>& ranges) {
    const RoutedTokens tokens = tokens_in(ranges);
    const auto contiguous =
        contiguous_placements(trace_.header(), request_.predict.traffic.cluster);
    const auto saved =
        saved_intervals(resample(tokens, contiguous), resample(tokens, placements_of(plan_)));
    return saved ? savings_json(*saved) : Json(nullptr);
  }

  Json engine(const EngineBackend& use, const std::vector<TokenRange>& ranges) {
    Json json = engine_traffic_json(
        predict_engine_traffic(use, placements_of(plan_), tokens_in(ranges),
                               request_.predict.traffic, request_.num_threads, progress_),
        request_.format);
    json["title"] = use.engine->title;
    json["kernel"] = kernel_of(use).title;
    if (!use.engine->files.empty()) {
      json["export_target"] = use.engine->files[0].name;
      json["rollback"] = use.engine->files[0].rollback;
    }
    return json;
  }

  Json drift(std::span<const TokenRange> ranges) {
    Json parts = Json::array();
    const std::int64_t num_parts = std::min(kDriftParts, num_tokens_in(ranges));
    for (auto& part : parts_in_order(ranges, num_parts)) {
      const auto counted = steps(std::move(part));
      const auto [before, after] = before_after(counted);
      parts.push_back({{"num_tokens", before.prediction.num_tokens},
                       {"before", mean_over_layers(before.prediction.wire_copies_per_token)},
                       {"after", mean_over_layers(after.prediction.wire_copies_per_token)},
                       {"imbalance_before", mean_over_layers(before.prediction.imbalance)},
                       {"imbalance_after", mean_over_layers(after.prediction.imbalance)}});
      if (!request_.predict.layer_time) continue;
      parts.back()["time_before_s"] = mean_over_layers(before.prediction.predicted_layer_time_s);
      parts.back()["time_after_s"] = mean_over_layers(after.prediction.predicted_layer_time_s);
    }
    return parts;
  }

  // The first sequence of the counted ones.
  Json sequence(TokenRange first) {
    const auto starts = trace_.sequence_starts();
    const auto next = std::ranges::upper_bound(starts, first.begin);
    if (next != starts.end()) first.end = std::min(first.end, *next);
    const auto counted = steps({first});
    const auto [before, after] = before_after(counted);
    return {{"index", next - starts.begin() - 1},
            {"num_tokens", first.end - first.begin},
            {"before", copies_of_ranks_json(before.volumes)},
            {"after", copies_of_ranks_json(after.volumes)}};
  }

 private:
  RoutedTokens tokens_in(std::vector<TokenRange> ranges) const {
    return {.trace = &trace_,
            .ranges = std::move(ranges),
            .name = fmt::format("{}, {}", request_.trace_name, name_of(request_.part))};
  }
  std::optional<ResampledPrediction> resample(const RoutedTokens& tokens,
                                              std::span<const Placement> placements) {
    return resample_prediction(tokens, placements, request_.predict, request_.num_threads,
                               progress_);
  }

  const Plan& plan_;
  const Trace& trace_;
  const ReportRequest& request_;
  Progress& progress_;
};

Json plan_json_of(const Plan& plan, const std::string& name) {
  Json fitted_on = Json::array();
  for (const PlanInput& input : plan.provenance.inputs) {
    if (input.role == "trace") fitted_on.push_back(input.text());
  }
  const auto bound = max_imbalance_of(plan);
  Json slots = Json::array();
  for (const PlanLayer& layer : plan.layers) slots.push_back(layer.placement.slots_per_rank());
  return {{"name", name},
          {"method", plan.provenance.method},
          {"max_imbalance", bound ? Json(*bound) : Json(nullptr)},
          {"fitted_on", std::move(fitted_on)},
          {"slots_per_rank", std::move(slots)}};
}

Json layers_json(const Plan& plan, std::span<const CollaborationMatrix> counts) {
  Json layers = Json::array();
  for (std::int64_t layer = 0; layer < plan.num_layers(); ++layer) {
    const PlanLayer& planned = at(plan.layers, layer);
    Json ranks = Json::array();
    for (const auto& hosts : ranks_of_experts(planned.placement)) {
      ranks.push_back(static_cast<std::int32_t>(hosts[0]));
    }
    Json order = Json::array();
    for (const ExpertId e : order_by_collaboration(at(counts, layer))) {
      order.push_back(static_cast<std::int32_t>(e));
    }
    layers.push_back({{"layer_index", planned.layer_index},
                      {"rank_of_expert", std::move(ranks)},
                      {"order", std::move(order)},
                      {"coactivation", packed_counts(at(counts, layer))}});
  }
  return layers;
}

CollaborationStatistics statistics_of(const Trace& trace, std::span<const TokenRange> ranges,
                                      int num_threads) {
  CollaborationStatistics statistics{.header = trace.header()};
  statistics.coactivation = count_pairs(trace, ranges, num_threads);
  statistics.num_tokens.assign(statistics.coactivation.size(), num_tokens_in(ranges));
  return statistics;
}

std::int64_t num_sequences_in(const Trace& trace, std::span<const TokenRange> ranges) {
  return std::ranges::count_if(trace.sequence_starts(), [&](std::int64_t start) {
    return std::ranges::any_of(
        ranges, [&](const TokenRange& range) { return range.begin <= start && start < range.end; });
  });
}

// What was given of the model with constraints, beside the plan's own traffic without one.
Json constraint_json(const ReportRequest& request, const WaterfallStep& after) {
  if (request.scores.empty() && request.constrained.empty()) return Json::array();
  std::vector<ConstraintInput> traffic = request.constrained;
  const Prediction& p = after.prediction;
  traffic.push_back({.top_t = {},
                     .value = {{"name", request.plan_name},
                               {"wire_copies_per_token", mean_over_layers(p.wire_copies_per_token)},
                               {"imbalance", mean_over_layers(p.imbalance)}}});
  return constraint_rows(request.scores, traffic);
}

void check_bench(const Json& bench, const Cluster& cluster) {
  C2R_REQUIRE(bench.at("ep_size") == cluster.ep_size(), kInvalidArgument,
              "{} is of {} ranks, but the plan is counted on {}",
              bench.at("name").get<std::string>(), bench.at("ep_size").get<std::int64_t>(),
              cluster.ep_size());
}

}  // namespace

const Json& step_before(const Json& report) {
  const Json& steps = report.at("steps");
  for (const Json& step : steps) {
    if (is_before(step.at("step").get<std::string>())) return step;
  }
  return steps.front();
}

const Json& step_after(const Json& report) {
  return report.at("steps").back();
}

double mean_of(const Json& step, const char* column) {
  return mean_over_layers(step.at(column).get<std::vector<double>>());
}

Json report_data(const Plan& plan, const Trace& trace, const ReportRequest& request,
                 Progress& progress) {
  check_fits(plan, trace.header(), request.trace_name);
  if (request.bench) check_bench(*request.bench, request.predict.traffic.cluster);
  const auto ranges = tokens_of(trace, request.part);
  Counting counting(plan, trace, request, progress);
  progress.begin("counting copies");
  const auto steps = counting.steps(ranges);
  const auto [before, after] = before_after(steps);
  const auto statistics = statistics_of(trace, ranges, request.num_threads);
  const TraceHeader& header = trace.header();
  Json report = {{"format", "c2r-report"},
                 {"version", kReportVersion},
                 {"c2r_version", version_text()},
                 {"trace",
                  {{"name", request.trace_name},
                   {"part", name_of(request.part)},
                   {"model", header.model},
                   {"num_tokens", num_tokens_in(ranges)},
                   {"num_sequences", num_sequences_in(trace, ranges)},
                   {"num_layers", header.num_layers()},
                   {"num_experts", header.num_experts},
                   {"top_k", header.top_k}}},
                 {"plan", plan_json_of(plan, request.plan_name)},
                 {"cluster", cluster_to_json(request.predict.traffic.cluster)}};
  report["hidden"] = request.format ? Json(request.format->hidden) : Json(nullptr);
  const auto& layer_time = request.predict.layer_time;
  report["batch_tokens"] =
      layer_time && layer_time->batch_tokens ? Json(*layer_time->batch_tokens) : Json(nullptr);
  if (request.engine) report["engine"] = counting.engine(*request.engine, ranges);
  report["answer"] = nullptr;  // its place among the keys
  report["analysis"] = analysis_json(
      {.statistics = statistics, .metrics = model_metrics(statistics), .fan_out = {}});
  // 61 layers of 256 experts are 3 MB of metrics that no figure shows.
  for (Json& layer : report["analysis"]["layers"]) layer.erase("experts");
  report["steps"] = waterfall_json(steps, request.format, judged_layers_of(plan));
  report["links"] = {{"before", links_json(before.volumes)}, {"after", links_json(after.volumes)}};
  progress.begin("resampling sequences");
  report["resampled"] = counting.resampled(ranges);
  progress.begin("counting parts of the trace");
  report["drift"] = counting.drift(ranges);
  report["sequence"] = counting.sequence(ranges[0]);
  report["layers"] = layers_json(plan, statistics.coactivation);
  if (request.comparison) report["comparison"] = *request.comparison;
  const Json constraint = constraint_json(request, after);
  if (!constraint.empty()) report["constraint"] = constraint;
  if (request.bench) report["measured"] = *request.bench;
  report["answer"] = answer_json(report);
  return report;
}

}  // namespace c2r
