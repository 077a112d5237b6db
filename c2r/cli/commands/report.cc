// `c2r report`: what a plan does to a trace, as one HTML page for people who decide.
#include <algorithm>
#include <charconv>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/output.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/report/page/figures.h"
#include "c2r/report/page/page.h"
#include "c2r/report/page/report_data.h"

namespace c2r::cli {
namespace {

struct ReportOptions : PredictionOptions {
  std::string trace, plan, comparison, bench, figure, output;
  std::vector<std::string> scores, constrained;
};

// A value of --score or --constrained: "FILE", or "T=FILE" of a model whose routing is constrained.
struct OfTopT {
  std::optional<std::int64_t> top_t;
  std::string path;
};

OfTopT parse_of_top_t(const std::string& text) {
  const std::size_t equals = text.find('=');
  std::int64_t top_t = 0;
  const char* const end = text.data() + std::min(equals, text.size());
  const auto parsed = std::from_chars(text.data(), end, top_t);
  const bool has_top_t = equals != std::string::npos && equals > 0 && parsed.ec == std::errc() &&
                         parsed.ptr == end && top_t > 0;
  if (!has_top_t) return {.top_t = {}, .path = text};
  return {.top_t = top_t, .path = text.substr(equals + 1)};
}

void read_given(const ReportOptions& options, ReportRequest& request) {
  if (!options.comparison.empty()) request.comparison = read_comparison(options.comparison);
  if (!options.bench.empty()) request.bench = read_layer_bench(options.bench);
  for (const std::string& text : options.scores) {
    const OfTopT score = parse_of_top_t(text);
    request.scores.push_back({.top_t = score.top_t, .value = read_scores(score.path)});
  }
  for (const std::string& text : options.constrained) {
    const OfTopT traffic = parse_of_top_t(text);
    C2R_REQUIRE(traffic.top_t.has_value(), kInvalidArgument,
                "--constrained takes T=FILE, such as 30=simulated.json, not '{}'", text);
    request.constrained.push_back(
        {.top_t = traffic.top_t, .value = read_constrained(traffic.path)});
  }
}

void report(const ReportOptions& options) {
  std::vector<std::string> inputs = {options.trace, options.plan, options.comparison,
                                     options.bench};
  for (const std::string& text : options.scores) inputs.push_back(parse_of_top_t(text).path);
  for (const std::string& text : options.constrained) inputs.push_back(parse_of_top_t(text).path);
  check_output(options.output, inputs);
  const Plan plan = read_plan(options.plan);
  const Trace trace(options.trace);
  const Cluster cluster = on_hardware(
      options.cluster.empty() ? plan.cluster : read_cluster(options.cluster), options.hardware);
  ReportRequest request{.plan_name = options.plan,
                        .trace_name = options.trace,
                        .part = parse_sequence_part(options.part),
                        .predict = request_of(options, cluster),
                        .engine = engine_of(options),
                        .format = format_of(options),
                        .num_threads = options.num_threads};
  read_given(options, request);
  ProgressLine progress("report");
  const Json data = report_data(plan, trace, request, progress);
  if (!options.figure.empty()) {
    write_result(options.output, figure_svg(data, options.figure));
  } else {
    write_result(options.output, options.is_json ? json_text(data, 1) + "\n" : report_page(data));
  }
}

}  // namespace

void add_report(CLI::App& app) {
  auto* const command =
      app.add_subcommand("report", "show what a plan does, as one HTML page for people who decide");
  auto options = std::make_shared<ReportOptions>();
  command->add_option("trace", options->trace, "the routing trace to count on")->required();
  command->add_option("--plan", options->plan, "the plan")->required()->type_name("FILE");
  command
      ->add_option("--compare", options->comparison,
                   "the output of `c2r compare --json`: the page shows its placements, too")
      ->type_name("FILE");
  command
      ->add_option("--constrained", options->constrained,
                   "T=FILE, the output of `c2r simulate --constrained --json` with routing among T "
                   "collaborators: the page shows its traffic; may be given for several T")
      ->allow_extra_args(false)
      ->type_name("T=FILE");
  command
      ->add_option(
          "--score", options->scores,
          "the output of `c2r score --json`, or T=FILE with routing among T collaborators: "
          "the page shows the perplexity; may be given for several T")
      ->allow_extra_args(false)
      ->type_name("FILE");
  command
      ->add_option(
          "--bench", options->bench,
          "the output of `c2r bench layer --json` or `c2r bench exchange --json`: the page "
          "shows the measured times")
      ->type_name("FILE");
  command
      ->add_option("--figure", options->figure,
                   "one figure as SVG instead of the page: waterfall, layers, loads, drift, front, "
                   "constraint, measured, links or sequence")
      ->check(offered({"waterfall", "layers", "loads", "drift", "front", "constraint", "measured",
                       "links", "sequence"}))
      ->type_name("NAME");
  add_prediction_options(*command, *options);
  command->add_flag("--json", options->is_json, "print the data of the page as one JSON object");
  add_output(*command, options->output, "the file to write; standard output if not given");
  command->footer(
      "The page needs no network and no other file. Its numbers are those of `c2r analyze`, "
      "`c2r simulate` and `c2r compare`, and the page holds all of them as JSON.\n"
      "Example:\n"
      "  c2r report trace.safetensors --plan plan.json --on odd -o report.html\n"
      "  c2r report trace.safetensors --plan plan.json --on odd --engine sglang \\\n"
      "      --backend deepep --hidden 2048 --intermediate 512 --hardware h100-ib400 \\\n"
      "      --batch-tokens 2048 -o report.html");
  command->callback([options] { report(*options); });
}

}  // namespace c2r::cli
