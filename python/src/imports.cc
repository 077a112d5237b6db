// Files of other engines for Python: what is made of them depends on the format.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/import/import.h"
#include "python/src/arguments.h"
#include "python/src/bindings.h"
#include "python/src/released.h"

namespace c2r::python {
namespace {

ImportRequest request_of(const std::string& format, std::vector<std::filesystem::path> inputs,
                         const std::optional<std::filesystem::path>& output,
                         const nb::dict& options) {
  ImportRequest request{.format = format,
                        .inputs = std::move(inputs),
                        .output = output.value_or(std::filesystem::path()),
                        .c2r_version = version_text()};
  take(options, "model", request.model);
  take(options, "num_experts", request.num_experts);
  take(options, "top_k", request.top_k);
  take(options, "layer_indices", request.layer_indices);
  take(options, "num_hidden_layers", request.num_hidden_layers);
  take(options, "weights", request.weights);
  take(options, "sequences", request.sequences);
  take(options, "axes", request.axes);
  take(options, "placement", request.placement);
  take(options, "skip_cached", request.skip_cached);
  take(options, "drop_incomplete", request.drop_incomplete);
  take(options, "repair", request.repair);
  take_name(options, "phase", parse_phase, request.phase);
  std::optional<std::string> cluster;
  take(options, "cluster", cluster);
  if (cluster) request.cluster = cluster_of(*cluster);
  return request;
}

nb::object opened(const ImportRequest& request, ImportKind makes) {
  switch (makes) {
    case ImportKind::kTrace:
      return nb::cast(Trace(request.output));
    case ImportKind::kStatistics:
      return nb::cast(read_statistics(request.output));
    case ImportKind::kPlan:
      break;
  }
  return nb::cast(read_plan(request.output));
}

// @returns the trace, the statistics or the plan, and what was left out or assumed, for the caller
// to show
std::pair<nb::object, std::vector<std::string>> import_to(
    const std::string& format, const std::vector<std::filesystem::path>& inputs,
    const std::optional<std::filesystem::path>& output, const nb::dict& options,
    const nb::object& progress) {
  ImportRequest request = request_of(format, inputs, output, options);
  std::vector<std::string> notes;
  request.notes = &notes;
  recognize_format(request);
  const ImportFormat* const found = find_import_format(request.format);
  if (output || found == nullptr) {
    const ImportResult result = released(progress, [&](const Running& running) {
      request.progress = &running.progress;
      return import_file(request);
    });
    return {opened(request, result.makes), std::move(notes)};
  }
  C2R_REQUIRE(found->makes != ImportKind::kTrace, kInvalidArgument,
              "format {} makes a trace, which is written to a file: output is missing",
              request.format);
  nb::object made;
  if (found->makes == ImportKind::kPlan) {
    made = nb::cast(released(progress, [&](const Running&) { return import_plan(request); }));
  } else {
    made = nb::cast(released(progress, [&](const Running&) { return import_statistics(request); }));
  }
  return {std::move(made), std::move(notes)};
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const ImportFormat& format : import_formats()) names.push_back(format.name);
  return names;
}

}  // namespace

void add_imports(nb::module_& module) {
  module.def("import_file", &import_to, nb::arg("format"), nb::arg("inputs"),
             nb::arg("output").none(), nb::arg("options"), nb::arg("progress").none());
  module.def("import_formats", &format_names);
}

}  // namespace c2r::python
