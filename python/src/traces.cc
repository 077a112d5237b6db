// Routing traces for Python.
#include <nanobind/stl/optional.h>

#include <filesystem>
#include <optional>

#include "c2r/core/error.h"
#include "c2r/trace/trace.h"
#include "python/src/arguments.h"
#include "python/src/arrays.h"
#include "python/src/bindings.h"

namespace c2r::python {
namespace {

// [begin, end), checked against the trace.
std::int64_t end_of(const Trace& trace, std::int64_t begin, std::optional<std::int64_t> end) {
  const std::int64_t last = end.value_or(trace.num_tokens());
  C2R_REQUIRE(0 <= begin && begin <= last && last <= trace.num_tokens(), kInvalidArgument,
              "tokens [{}, {}) are not within the {} tokens of {}", begin, last, trace.num_tokens(),
              trace.path());
  return last;
}

nb::ndarray<nb::numpy, std::int32_t> topk_idx(const Trace& trace, std::int64_t layer,
                                              std::int64_t begin, std::optional<std::int64_t> end) {
  check_layer(layer, trace.header().num_layers(), trace.path());
  return to_numpy(trace.topk_idx(layer, begin, end_of(trace, begin, end)));
}

nb::ndarray<nb::numpy, float> topk_weights(const Trace& trace, std::int64_t layer,
                                           std::int64_t begin, std::optional<std::int64_t> end) {
  check_layer(layer, trace.header().num_layers(), trace.path());
  return to_numpy(trace.topk_weights(layer, begin, end_of(trace, begin, end)));
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
  check_layer(layer, trace.header().num_layers(), trace.path());
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

nb::ndarray<nb::numpy, std::int64_t> sequence_starts(const Trace& trace) {
  const auto starts = trace.sequence_starts();
  return to_numpy(std::vector<std::int64_t>(starts.begin(), starts.end()));
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

void add_header(nb::module_& module) {
  nb::class_<TraceHeader>(module, "TraceHeader",
                          R"(What a trace, or counts of one, say about the model.

Args:
  num_experts: routed experts of a layer, in [1, 1024].
  top_k: experts that a token chooses, in [1, 32].
  layer_indices: the model's own index of each MoE layer, ascending; dense layers count.
  model: the model's name, free text.

Raises:
  TypeError: an argument is missing or has another type. The values are checked where they are used.

>>> header = c2r.TraceHeader(num_experts=4, top_k=2, layer_indices=[1, 2])
>>> header.num_layers
2)")
      .def(
          "__init__",
          [](TraceHeader* self, std::int32_t num_experts, std::int32_t top_k,
             std::vector<std::int32_t> layer_indices, std::string model) {
            new (self) TraceHeader{std::move(model), num_experts, top_k, std::move(layer_indices)};
          },
          nb::kw_only(), nb::arg("num_experts"), nb::arg("top_k"), nb::arg("layer_indices"),
          nb::arg("model") = "")
      .def_ro("model", &TraceHeader::model, "The model's name; may be empty.")
      .def_ro("num_experts", &TraceHeader::num_experts, "Routed experts of a layer.")
      .def_ro("top_k", &TraceHeader::top_k, "Experts that a token chooses.")
      .def_ro("layer_indices", &TraceHeader::layer_indices,
              "The model's own index of each MoE layer, ascending: [num_layers].")
      .def_prop_ro("num_layers", &TraceHeader::num_layers, "MoE layers.");
}

constexpr char kTraceDoc[] = R"(A routing trace: which experts every token chose in every MoE layer.

Made of the path of a file, which is mapped and not read into memory, or of arrays::

    Trace(path)
    Trace(header, topk_idx, sequence_starts=None, name="memory")

Args:
  path: of a trace, as ``c2r profile``, ``c2r import`` and :class:`TraceWriter` write it.
  header: a :class:`TraceHeader`.
  topk_idx: for each layer an int32 array [num_tokens, top_k] of expert ids; -1 is no expert. The ids are copied into
    one or two bytes each.
  sequence_starts: int64 [num_sequences], ascending from 0; None is one sequence.
  name: how messages call it.

Raises:
  OSError: the file cannot be read or is no trace.
  TypeError: an array has another type or layout; nothing is converted silently.
  ValueError: the arrays contradict the header.

>>> header = c2r.TraceHeader(num_experts=4, top_k=2, layer_indices=[0])
>>> trace = c2r.Trace(header, [np.array([[0, 1], [2, -1]], np.int32)])
>>> trace.num_tokens
2
>>> trace.topk_idx(0).tolist()
[[0, 1], [2, -1]])";

constexpr char kTopkIdxDoc[] = R"(The choices of tokens [begin, end) in a layer, copied.

Args:
  layer: in [0, num_layers), the position of the layer and not the model's own index.
  begin, end: tokens; all of them by default.

Returns:
  int32 [end - begin, top_k], as recorded; -1 is no expert.

Raises:
  OSError: a choice is out of range or twice in its token; the message names file, layer and token.
  ValueError: the layer or the tokens are out of range.)";

void add_trace(nb::module_& module) {
  nb::class_<Trace>(module, "Trace", kTraceDoc)
      .def(nb::init<const std::filesystem::path&>(), nb::arg("path"))
      .def("__init__", &make_trace, nb::arg("header"), nb::arg("topk_idx"),
           nb::arg("sequence_starts") = nb::none(), nb::arg("name") = "memory")
      .def_prop_ro("path", &Trace::path, "The path of the file, or the name of a trace in memory.")
      .def_prop_ro("header", &Trace::header, nb::rv_policy::reference_internal,
                   "What the trace says about the model, a :class:`TraceHeader`.")
      .def_prop_ro("num_tokens", &Trace::num_tokens, "Tokens of all sequences together.")
      .def_prop_ro("has_weights", &Trace::has_weights, "Whether it has the weights of choices.")
      .def_prop_ro("sequence_starts", &sequence_starts, nb::rv_policy::automatic,
                   "The first token of each sequence, int64 [num_sequences].")
      .def("topk_idx", &topk_idx, nb::arg("layer"), nb::arg("begin") = 0,
           nb::arg("end") = nb::none(), kTopkIdxDoc)
      .def("topk_weights", &topk_weights, nb::arg("layer"), nb::arg("begin") = 0,
           nb::arg("end") = nb::none(),
           R"(The weights of the choices of tokens [begin, end) in a layer.

Args:
  layer, begin, end: as in :meth:`topk_idx`.

Returns:
  float32 [end - begin, top_k], of the float16 that traces hold.

Raises:
  ValueError: the trace has no weights, or the layer or the tokens are out of range.)")
      .def("stored_topk_idx", &stored_topk_idx, nb::arg("layer"),
           nb::sig("def stored_topk_idx(self, layer: int) -> "
                   "numpy.typing.NDArray[numpy.uint8 | numpy.uint16]"),
           R"(The choices of a layer as the file holds them, without a copy and unchecked.

Args:
  layer: in [0, num_layers).

Returns:
  uint8 or uint16 [num_tokens, top_k], read-only; the largest value of the type is no expert. The array keeps the file
  open.

Raises:
  ValueError: the layer is out of range.)");
}

constexpr char kTraceWriterDoc[] =
    R"(Writes a trace, batch after batch, in memory that does not grow with the number of tokens.

The file appears with :meth:`finish`, whole; without it nothing is left, and an older file stays as it was.

Args:
  path: the file.
  header: a :class:`TraceHeader`.
  has_weights: whether weights of the choices are written, too, as float16.

Raises:
  OSError: the header is not that of a model, or the folder cannot be written to.

>>> header = c2r.TraceHeader(num_experts=4, top_k=2, layer_indices=[0])
>>> writer = c2r.TraceWriter("small.safetensors", header)
>>> writer.start_sequence()
>>> writer.append(0, np.array([[0, 1], [2, 3]], np.int32))
>>> writer.finish()
>>> c2r.Trace("small.safetensors").num_tokens
2)";

void add_writer(nb::module_& module) {
  nb::class_<TraceWriter>(module, "TraceWriter", kTraceWriterDoc)
      .def(nb::init<const std::filesystem::path&, TraceHeader, bool>(), nb::arg("path"),
           nb::arg("header"), nb::arg("has_weights") = false)
      .def(
          "append", &append, nb::arg("layer"), nb::arg("topk_idx").noconvert(),
          nb::arg("topk_weights").noconvert() = nb::none(), nb::arg("place") = "topk_idx",
          R"(Appends the choices of tokens to a layer. Every layer gets every token, in the same order.

Args:
  layer: in [0, num_layers).
  topk_idx: int32 [num_tokens, top_k]; -1 is no expert.
  topk_weights: float32 [num_tokens, top_k], if and only if the writer has weights.
  place: where the choices are from, for messages.

Raises:
  OSError: a choice is out of range or twice in its token, or the disk is full.
  TypeError: an array has another type or layout.
  ValueError: the layer or a shape does not fit.)")
      .def("start_sequence", &TraceWriter::start_sequence,
           "Says that a sequence starts with the next token that is appended to layer 0.")
      .def("finish", &TraceWriter::finish, nb::call_guard<nb::gil_scoped_release>(),
           R"(Writes the file.

Raises:
  OSError: layers have different numbers of tokens, or the disk is full.)")
      .def_prop_ro("num_tokens", &TraceWriter::num_tokens,
                   "Tokens that the first layer has so far.");
}

}  // namespace

void add_traces(nb::module_& module) {
  add_header(module);
  add_trace(module);
  add_writer(module);
}

}  // namespace c2r::python
