// Routing traces for Python.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <optional>

#include "c2r/core/error.h"
#include "c2r/trace/trace.h"
#include "python/src/arrays.h"
#include "python/src/bindings.h"

namespace c2r::python {
namespace {

void check_layer(const Trace& trace, std::int64_t layer) {
  C2R_REQUIRE(0 <= layer && layer < trace.header().num_layers(), kInvalidArgument,
              "{} has layers 0 to {}, not {}", trace.path(), trace.header().num_layers() - 1,
              layer);
}

// [begin, end), checked against the trace.
std::int64_t end_of(const Trace& trace, std::int64_t begin, std::optional<std::int64_t> end) {
  const std::int64_t last = end.value_or(trace.num_tokens());
  C2R_REQUIRE(0 <= begin && begin <= last && last <= trace.num_tokens(), kInvalidArgument,
              "tokens [{}, {}) are not within the {} tokens of {}", begin, last, trace.num_tokens(),
              trace.path());
  return last;
}

nb::object topk_idx(const Trace& trace, std::int64_t layer, std::int64_t begin,
                    std::optional<std::int64_t> end) {
  check_layer(trace, layer);
  return nb::cast(to_numpy(trace.topk_idx(layer, begin, end_of(trace, begin, end))));
}

nb::object topk_weights(const Trace& trace, std::int64_t layer, std::int64_t begin,
                        std::optional<std::int64_t> end) {
  check_layer(trace, layer);
  return nb::cast(to_numpy(trace.topk_weights(layer, begin, end_of(trace, begin, end))));
}

// A trace in memory of one array a layer.
void make_trace(Trace* self, const TraceHeader& header, const std::vector<AnyArray>& layers,
                const std::optional<AnyArray>& starts, std::string name) {
  std::vector<MatrixView<const ExpertId>> views;
  for (const AnyArray& layer : layers) views.push_back(expert_matrix(layer, "topk_idx"));
  const auto first =
      starts ? int64_vector(*starts, "sequence_starts") : std::span<const std::int64_t>();
  const nb::gil_scoped_release released;
  new (self) Trace(header, views, first, std::move(name));
}

// The ids where the file is mapped; the array keeps the trace open.
nb::object stored_topk_idx(nb::handle self, std::int64_t layer) {
  const auto& trace = nb::cast<const Trace&>(self);
  check_layer(trace, layer);
  const StoredTopkIdx stored = trace.stored_topk_idx(layer);
  const std::size_t rows = static_cast<std::size_t>(trace.num_tokens());
  const auto top_k = static_cast<std::size_t>(trace.header().top_k);
  if (stored.u16.empty()) {
    return nb::cast(
        nb::ndarray<nb::numpy, const std::uint8_t>(stored.u8.data(), {rows, top_k}, self));
  }
  return nb::cast(
      nb::ndarray<nb::numpy, const std::uint16_t>(stored.u16.data(), {rows, top_k}, self));
}

nb::object sequence_starts(const Trace& trace) {
  const auto starts = trace.sequence_starts();
  return nb::cast(to_numpy(std::vector<std::int64_t>(starts.begin(), starts.end())));
}

void append(TraceWriter& writer, std::int64_t layer, const AnyArray& ids,
            const std::optional<AnyArray>& weights, const std::string& place) {
  const auto rows = expert_matrix(ids, "topk_idx");
  std::span<const float> values;
  if (weights) {
    const auto matrix = float_matrix(*weights, "topk_weights");
    C2R_REQUIRE(matrix.rows() == rows.rows() && matrix.cols() == rows.cols(), kInvalidArgument,
                "topk_weights is {}x{}, but topk_idx is {}x{}", matrix.rows(), matrix.cols(),
                rows.rows(), rows.cols());
    values = {matrix.data(), static_cast<std::size_t>(matrix.rows() * matrix.cols())};
  }
  const std::span experts(rows.data(), static_cast<std::size_t>(rows.rows() * rows.cols()));
  const nb::gil_scoped_release released;
  writer.append(layer, experts, values, place);
}

}  // namespace

void add_traces(nb::module_& module) {
  nb::class_<TraceHeader>(module, "TraceHeader")
      .def(
          "__init__",
          [](TraceHeader* self, std::int32_t num_experts, std::int32_t top_k,
             std::vector<std::int32_t> layer_indices, std::string model) {
            new (self) TraceHeader{std::move(model), num_experts, top_k, std::move(layer_indices)};
          },
          nb::kw_only(), nb::arg("num_experts"), nb::arg("top_k"), nb::arg("layer_indices"),
          nb::arg("model") = "")
      .def_ro("model", &TraceHeader::model)
      .def_ro("num_experts", &TraceHeader::num_experts)
      .def_ro("top_k", &TraceHeader::top_k)
      .def_ro("layer_indices", &TraceHeader::layer_indices)
      .def_prop_ro("num_layers", &TraceHeader::num_layers);

  nb::class_<Trace>(module, "Trace")
      .def(nb::init<const std::filesystem::path&>(), nb::arg("path"))
      .def("__init__", &make_trace, nb::arg("header"), nb::arg("topk_idx"),
           nb::arg("sequence_starts") = nb::none(), nb::arg("name") = "memory")
      .def_prop_ro("path", &Trace::path)
      .def_prop_ro("header", &Trace::header, nb::rv_policy::reference_internal)
      .def_prop_ro("num_tokens", &Trace::num_tokens)
      .def_prop_ro("has_weights", &Trace::has_weights)
      .def_prop_ro("sequence_starts", &sequence_starts)
      .def("topk_idx", &topk_idx, nb::arg("layer"), nb::arg("begin") = 0,
           nb::arg("end") = nb::none())
      .def("topk_weights", &topk_weights, nb::arg("layer"), nb::arg("begin") = 0,
           nb::arg("end") = nb::none())
      .def("stored_topk_idx", &stored_topk_idx, nb::arg("layer"));

  nb::class_<TraceWriter>(module, "TraceWriter")
      .def(nb::init<const std::filesystem::path&, TraceHeader, bool>(), nb::arg("path"),
           nb::arg("header"), nb::arg("has_weights") = false)
      .def("append", &append, nb::arg("layer"), nb::arg("topk_idx").noconvert(),
           nb::arg("topk_weights").noconvert() = nb::none(), nb::arg("place") = "topk_idx")
      .def("start_sequence", &TraceWriter::start_sequence)
      .def("finish", &TraceWriter::finish, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("num_tokens", &TraceWriter::num_tokens);
}

}  // namespace c2r::python
