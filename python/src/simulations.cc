// Predictions for Python: simulations, what an engine sends, and comparisons of plans.
#include <nanobind/stl/pair.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/plan/compare.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/prediction/reroute.h"
#include "c2r/report/comparison.h"
#include "c2r/report/engine_traffic.h"
#include "c2r/report/predictions.h"
#include "python/src/bindings.h"
#include "python/src/prediction_options.h"
#include "python/src/released.h"

namespace c2r::python {
namespace {

// The rules of the options by which the tokens are to be routed again.
std::vector<Rerouting> rerouting_rules(const nb::dict& options) {
  std::vector<std::string> names;
  take(options, "policies", names);
  std::vector<Rerouting> rules;
  for (const std::string& name : names) rules.push_back(parse_rerouting(name));
  return rules;
}

std::string simulate(const Plan& plan, const Trace& trace, const Trace* constrained,
                     const nb::dict& options, const nb::object& progress) {
  const PredictRequest request = predict_request(on_hardware(plan.cluster, options), options);
  const auto format = copy_format(options);
  const Counting how = counting(options);
  const auto rules = rerouting_rules(options);
  return released(progress, [&](const Running& running) {
    const RoutedTokens tokens = routed_tokens_of(trace, how.on);
    const RoutedTokens others =
        constrained == nullptr ? tokens : routed_tokens_of(*constrained, how.on);
    const ConstrainedTokens under_plan{.tokens = others, .plan = plan};
    auto steps = predict_waterfall(plan, tokens, constrained == nullptr ? nullptr : &under_plan,
                                   request, how.num_threads, running.progress);
    std::vector<std::pair<std::int64_t, std::int64_t>> choices;  // of the steps of the rules
    for (const Rerouting& rule : rules) {
      const ReroutedStep again = predict_rerouted(rule, tokens, plan, steps[0], request,
                                                  how.num_threads, running.progress);
      steps.push_back(again.step);
      choices.emplace_back(again.num_choices, again.num_other_choices);
    }
    Json json = waterfall_json(steps, format, judged_layers_of(plan));
    for (std::size_t i = 0; i < choices.size(); ++i) {
      Json& step = json[steps.size() - choices.size() + i];
      step["num_choices"] = choices[i].first;
      step["num_other_choices"] = choices[i].second;
    }
    return json_text(json);
  });
}

std::string simulate_counts(const Plan& plan, const CollaborationStatistics& statistics,
                            const nb::dict& options, const nb::object& progress) {
  const PredictRequest request = predict_request(on_hardware(plan.cluster, options), options);
  const auto format = copy_format(options);
  const Counting how = counting(options);
  C2R_REQUIRE(how.on == SequencePart::kAll, kInvalidArgument,
              "counts are of all sequences, not of on={}", name_of(how.on));
  return released(progress, [&](const Running& running) {
    const RoutedTokens tokens = routed_tokens_of(statistics, "memory");
    return json_text(waterfall_json(
        predict_waterfall(plan, tokens, nullptr, request, how.num_threads, running.progress),
        format, judged_layers_of(plan)));
  });
}

std::string engine_traffic(const Plan& plan, const Trace& trace, const nb::dict& options,
                           const nb::object& progress) {
  const PredictRequest request = predict_request(plan.cluster, options);
  const EngineBackend engine = engine_of(options).value();
  const auto format = copy_format(options);
  const Counting how = counting(options);
  return released(progress, [&](const Running& running) {
    return json_text(engine_traffic_json(
        predict_engine_traffic(engine, placements_of(plan), routed_tokens_of(trace, how.on),
                               request.traffic, how.num_threads, running.progress),
        format));
  });
}

// @param compare_on called with the plans, the request and the progress
template <class CompareOn>
std::string compare_plans_on(const std::vector<std::pair<std::string, Plan>>& plans,
                             const std::string& cluster, const nb::dict& options,
                             const nb::object& progress, CompareOn compare_on) {
  const Cluster used = on_hardware(
      cluster.empty() && !plans.empty() ? plans[0].second.cluster : cluster_of(cluster), options);
  CompareRequest request{.predict = predict_request(used, options)};
  const Counting how = counting(options);
  request.on = how.on;
  request.fit = other_part(how.on);
  take_name(options, "fit", parse_sequence_part, request.fit);
  take(options, "baselines", request.baselines);
  take(options, "redundant_slots", request.redundant_slots_per_rank);
  take(options, "front_points", request.num_front_points);
  take(options, "seed", request.seed);
  request.num_threads = how.num_threads;
  const auto format = copy_format(options);
  std::vector<NamedPlan> named;
  for (const auto& [name, plan] : plans) named.push_back({name, plan});
  return released(progress, [&](const Running& running) {
    return json_text(comparison_json(compare_on(named, request, running.progress), used, format));
  });
}

std::string compare_plans(const Trace& trace,
                          const std::vector<std::pair<std::string, Plan>>& plans,
                          const std::string& cluster, const nb::dict& options,
                          const nb::object& progress) {
  return compare_plans_on(plans, cluster, options, progress,
                          [&](std::span<const NamedPlan> named, const CompareRequest& request,
                              Progress& shown) { return compare(trace, named, request, shown); });
}

std::string compare_on_counts(const CollaborationStatistics& statistics,
                              const std::vector<std::pair<std::string, Plan>>& plans,
                              const std::string& cluster, const nb::dict& options,
                              const nb::object& progress) {
  return compare_plans_on(
      plans, cluster, options, progress,
      [&](std::span<const NamedPlan> named, const CompareRequest& request, Progress& shown) {
        return compare(statistics, "memory", named, request, shown);
      });
}

}  // namespace

void add_predictions(nb::module_& module) {
  module.def("simulate_counts", &simulate_counts, nb::arg("plan"), nb::arg("statistics"),
             nb::arg("options"), nb::arg("progress").none());
  module.def("compare_on_counts", &compare_on_counts, nb::arg("statistics"), nb::arg("plans"),
             nb::arg("cluster"), nb::arg("options"), nb::arg("progress").none());
  module.def("simulate", &simulate, nb::arg("plan"), nb::arg("trace"),
             nb::arg("constrained").none(), nb::arg("options"), nb::arg("progress").none());
  module.def("engine_traffic", &engine_traffic, nb::arg("plan"), nb::arg("trace"),
             nb::arg("options"), nb::arg("progress").none());
  module.def("compare", &compare_plans, nb::arg("trace"), nb::arg("plans"), nb::arg("cluster"),
             nb::arg("options"), nb::arg("progress").none());
}

}  // namespace c2r::python
