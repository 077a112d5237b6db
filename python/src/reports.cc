// The report for Python: its data, and the page or one of its figures as a file.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/report/page/figures.h"
#include "c2r/report/page/page.h"
#include "c2r/report/page/report_data.h"
#include "python/src/bindings.h"
#include "python/src/prediction_options.h"
#include "python/src/released.h"

namespace c2r::python {
namespace {

// What was measured with T collaborators, or without a constraint: a file, or JSON itself.
using OfTopT = std::pair<std::optional<std::int64_t>, std::string>;

bool is_json(std::string_view text) {
  return text.starts_with("{");
}

Json comparison_of(const std::string& text) {
  return is_json(text) ? checked_comparison(parse_json(text, "compare"), "compare")
                       : read_comparison(text);
}

Json constrained_of(const std::string& text) {
  return is_json(text) ? constrained_traffic(parse_json(text, "constrained"), "constrained")
                       : read_constrained(text);
}

ReportRequest report_request(const Plan& plan, const Trace& trace, const nb::dict& options) {
  std::string cluster, plan_name;
  take(options, "cluster", cluster);
  take(options, "plan_name", plan_name);
  const Cluster used = on_hardware(cluster.empty() ? plan.cluster : cluster_of(cluster), options);
  const Counting how = counting(options);
  ReportRequest request{.plan_name = plan_name,
                        .trace_name = trace.path(),
                        .part = how.on,
                        .predict = predict_request(used, options),
                        .engine = engine_of(options),
                        .format = copy_format(options),
                        .num_threads = how.num_threads};
  std::optional<std::string> comparison, bench;
  take(options, "compare", comparison);
  take(options, "bench", bench);
  if (comparison) request.comparison = comparison_of(*comparison);
  if (bench) request.bench = read_layer_bench(*bench);
  std::vector<OfTopT> scores, constrained;
  take(options, "score", scores);
  take(options, "constrained", constrained);
  for (const auto& [top_t, path] : scores) {
    request.scores.push_back({.top_t = top_t, .value = read_scores(path)});
  }
  for (const auto& [top_t, text] : constrained) {
    request.constrained.push_back({.top_t = top_t, .value = constrained_of(text)});
  }
  return request;
}

void require_other_file(const std::filesystem::path& output, const std::string& input) {
  std::error_code ignored;  // then one of them is not there
  C2R_REQUIRE(!std::filesystem::equivalent(output, input, ignored), kInvalidArgument,
              "output '{}' would overwrite the input '{}'", output.string(), input);
}

// @returns the data of the report as JSON
std::string report(const Plan& plan, const Trace& trace,
                   const std::optional<std::filesystem::path>& output, const nb::dict& options,
                   const nb::object& progress) {
  std::string figure;
  take(options, "figure", figure);
  C2R_REQUIRE(figure.empty() || output, kInvalidArgument,
              "figure '{}' is written to a file: output is missing", figure);
  const ReportRequest request = report_request(plan, trace, options);
  std::optional<AtomicFile> file;
  if (output) {
    for (const std::string& input : {request.trace_name, request.plan_name}) {
      require_other_file(*output, input);
    }
    file.emplace(*output);  // a folder that cannot be written to is an error before the work
  }
  return released(progress, [&](const Running& running) {
    const Json data = report_data(plan, trace, request, running.progress);
    if (file) {
      file->write(figure.empty() ? report_page(data) : figure_svg(data, figure));
      file->commit();
    }
    return json_text(data);
  });
}

}  // namespace

void add_reports(nb::module_& module) {
  module.def("report", &report, nb::arg("plan"), nb::arg("trace"), nb::arg("output").none(),
             nb::arg("options"), nb::arg("progress").none());
}

}  // namespace c2r::python
