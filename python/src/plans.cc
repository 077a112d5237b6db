// Plans for Python: making, reading and exporting them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/file.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/plan/engines/export.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/plan.h"
#include "python/src/arguments.h"
#include "python/src/arrays.h"
#include "python/src/bindings.h"
#include "python/src/prediction_options.h"
#include "python/src/released.h"

namespace c2r::python {
namespace {

struct PlanArguments {
  PlanRequest request;
  SequencePart fit = SequencePart::kAll;
};

// The package's plan() names and types them; here they only change their form.
PlanArguments plan_arguments(const std::string& cluster, const nb::dict& options) {
  PlanArguments arguments;
  PlanRequest& request = arguments.request;
  request.cluster = on_hardware(cluster_of(cluster), options);
  take(options, "method", request.method);
  take(options, "redundant_slots", request.redundant_slots_per_rank);
  take(options, "num_groups", request.num_groups);
  take(options, "scenarios", request.scenarios);
  take(options, "seed", request.seed);
  take(options, "top_t", request.top_t);
  request.engine = engine_of(options);
  take(options, "effort", request.effort);
  take(options, "seconds", request.seconds);
  int num_threads = 0;
  take(options, "num_threads", num_threads);
  request.num_threads = threads_of(num_threads);
  PlanGoal& goal = request.goal;
  take_name(options, "minimize", parse_goal, goal.minimize);
  take(options, "imbalance_weight", goal.imbalance_weight);
  take(options, "max_imbalance", goal.max_imbalance);
  take_name(options, "bound_on", parse_bound_on, goal.bound_on);
  take(options, "max_copies", goal.max_copies);
  take(options, "hidden", goal.hidden);
  take(options, "intermediate", goal.intermediate);
  take(options, "batch_tokens", goal.batch_tokens);
  take_name(options, "overlap", parse_overlap, goal.overlap);
  take_name(options, "fit", parse_sequence_part, arguments.fit);
  return arguments;
}

// Also what warnings the library has, for the caller to show.
std::pair<Plan, std::vector<std::string>> make(const Trace& trace, const std::string& cluster,
                                               const nb::dict& options,
                                               const nb::object& progress) {
  const PlanArguments arguments = plan_arguments(cluster, options);
  std::vector<std::string> warnings;
  Plan plan = released(progress, [&](const Running& running) {
    const PlanHooks hooks{.progress = &running.progress,
                          .stop = &running.stop,
                          .warn = [&](const std::string& text) { warnings.push_back(text); }};
    MadePlan made = make_plan(trace, arguments.request, arguments.fit, hooks);
    if (!made.left_out.empty()) warnings.push_back(left_out_text(made));
    return std::move(made.plan);
  });
  return {std::move(plan), std::move(warnings)};
}

// The same on counts of all sequences.
std::pair<Plan, std::vector<std::string>> make_of_counts(const CollaborationStatistics& statistics,
                                                         const std::string& cluster,
                                                         const nb::dict& options,
                                                         const nb::object& progress) {
  PlanArguments arguments = plan_arguments(cluster, options);
  C2R_REQUIRE(arguments.fit == SequencePart::kAll, kInvalidArgument,
              "counts are of all sequences, not of fit={}", name_of(arguments.fit));
  const bool has_method = options.contains("method") && !options["method"].is_none();
  if (!statistics.has_pairs && !has_method) arguments.request.method = kBalanceMethod;
  std::vector<std::string> warnings;
  Plan plan = released(progress, [&](const Running& running) {
    const PlanHooks hooks{.progress = &running.progress,
                          .stop = &running.stop,
                          .warn = [&](const std::string& text) { warnings.push_back(text); }};
    MadePlan made = make_plan(statistics, "memory", arguments.request, hooks);
    if (!made.left_out.empty()) warnings.push_back(left_out_text(made));
    return std::move(made.plan);
  });
  return {std::move(plan), std::move(warnings)};
}

using SlotsOfLayer = nb::ndarray<nb::numpy, std::int32_t>;  // [rows, columns]

std::vector<SlotsOfLayer> slots(const Plan& plan) {
  std::vector<SlotsOfLayer> layers;
  for (const PlanLayer& layer : plan.layers) layers.push_back(to_numpy(layer.placement.slots));
  return layers;
}

std::optional<std::vector<SlotsOfLayer>> collaborators_of(const Plan& plan) {
  if (!plan.top_t) return std::nullopt;
  std::vector<SlotsOfLayer> layers;
  for (const PlanLayer& layer : plan.layers) layers.push_back(to_numpy(layer.collaborators));
  return layers;
}

std::vector<std::int32_t> layer_indices(const Plan& plan) {
  std::vector<std::int32_t> indices;
  for (const PlanLayer& layer : plan.layers) indices.push_back(layer.layer_index);
  return indices;
}

// @returns how the engine is told to load the file; what it would not say is a Python warning
std::string export_to(const Plan& plan, const std::string& target,
                      const std::filesystem::path& path,
                      std::optional<std::int32_t> num_hidden_layers, const std::string& backend) {
  const ExportTarget found = find_export_target(target);
  check_export_path(found, path.native(), "path");
  C2R_REQUIRE(!num_hidden_layers || found.file.has_hidden_layer_rows, kInvalidArgument,
              "num_hidden_layers makes no difference to {}, only to sglang", target);
  const Export file =
      export_plan(found, plan, {.num_hidden_layers = num_hidden_layers, .backend = backend});
  write_text_file(path, file.bytes);
  for (const std::string& warning : file.warnings) {
    if (PyErr_WarnEx(PyExc_UserWarning, warning.c_str(), 1) != 0) throw nb::python_error();
  }
  return export_usage(found, plan, path.native());
}

constexpr char kPlanDoc[] =
    R"(Where every expert is: made by :func:`plan`, read by everything else. The file is JSON, docs/formats.md.

Plans are equal (``==``) if all that a file would say is.

>>> arrays = [np.array([[0, 2], [0, 2], [1, 3], [1, 3]], np.int32)]
>>> plan = c2r.plan(arrays, "1x2", num_experts=4)
>>> sorted(sorted(experts) for experts in plan.slots()[0].tolist())
[[0, 2], [1, 3]]
>>> plan.save("plan.json")
>>> c2r.Plan.load("plan.json") == plan
True)";

constexpr char kExportDoc[] =
    R"(Writes the placement as another engine loads it: ``c2r export``. The file is read back and compared first.

Args:
  target: sglang, tensorrt-llm, vllm-41141, vllm-49572, vllm-ascend, omni-infer, eplb or permutation.
  path: the file; it must end as the engine expects, such as .json.
  num_hidden_layers: sglang: all layers of the model, dense ones too.
  backend: the engine's all-to-all backend, such as deepep_low_latency: warns of what placement cannot save with it.

Returns:
  How the engine is told to load the file, a line of text.

Raises:
  OSError: the file cannot be written.
  ValueError: the target is unknown, the path ends otherwise, or the engine cannot express the plan, such as replicas in
    a permutation.
  What the engine would not say is a UserWarning.

>>> import warnings
>>> warnings.simplefilter("ignore")
>>> plan = c2r.plan([np.array([[0, 2], [1, 3]], np.int32)], "1x2", num_experts=4)
>>> plan.export("sglang", "map.json").split()[-3:]
['map.json', '--ep-dispatch-algorithm', 'static'])";

void add_plan_class(nb::module_& module) {
  nb::class_<Plan>(module, "Plan", kPlanDoc)
      .def_static("load", &read_plan, nb::arg("path"), R"(Reads a plan file.

Args:
  path: a file that ``c2r plan`` or :meth:`save` has written.

Returns:
  :class:`Plan`.

Raises:
  OSError: the file cannot be read, or has another version or an unknown key.)")
      .def_static(
          "from_text", [](const std::string& text) { return parse_plan(text, "plan"); },
          nb::arg("text"), R"(A plan of its JSON.

Args:
  text: as :meth:`to_text` gives it.

Returns:
  :class:`Plan`.

Raises:
  OSError: the text is no plan.)")
      .def("save", &write_plan, nb::arg("path"), R"(Writes the plan as a file, whole or not at all.

Args:
  path: the file.

Raises:
  OSError: it cannot be written.)")
      .def("to_text", &plan_to_text, R"(The JSON that :meth:`save` writes.

Returns:
  str.)")
      .def_ro("model", &Plan::model, "The model's name; may be empty.")
      .def_ro("num_experts", &Plan::num_experts, "Routed experts of a layer.")
      .def_ro("top_k", &Plan::top_k, "Experts that a token chooses.")
      .def_prop_ro(
          "ep_size", [](const Plan& plan) { return plan.cluster.ep_size(); },
          "Ranks that the experts are spread over.")
      .def_prop_ro("num_layers", &Plan::num_layers, "MoE layers.")
      .def_prop_ro("layer_indices", &layer_indices,
                   "The model's own index of each MoE layer, ascending: [num_layers].")
      .def("slots", &slots, R"(The experts that each rank holds, copied.

Returns:
  For each layer int32 [ep_size, slots_per_rank]; an expert that is there twice has replicas, -1 is an empty slot.)")
      .def("collaborators", &collaborators_of, R"(The lists that constrain routing, copied.

Returns:
  For each layer int32 [num_experts, T of the layer], best first; None if the plan has none.)")
      .def("export", &export_to, nb::arg("target"), nb::arg("path"), nb::kw_only(),
           nb::arg("num_hidden_layers") = nb::none(), nb::arg("backend") = "", kExportDoc)
      .def("__eq__", [](const Plan& a, const Plan& b) { return a == b; });
}

}  // namespace

void add_plans(nb::module_& module) {
  add_plan_class(module);
  module.def("make_plan", &make, nb::arg("trace"), nb::arg("cluster"), nb::arg("options"),
             nb::arg("progress").none());
  module.def("make_plan_of_counts", &make_of_counts, nb::arg("statistics"), nb::arg("cluster"),
             nb::arg("options"), nb::arg("progress").none());
}

}  // namespace c2r::python
