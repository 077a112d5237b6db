// Binds collaboration statistics to Python.
#include "c2r/collaboration/collaboration.h"

#include "c2r/collaboration/collaborators.h"
#include "c2r/core/error.h"
#include "python/src/arguments.h"
#include "python/src/arrays.h"
#include "python/src/bindings.h"
#include "python/src/released.h"

namespace c2r::python {
namespace {

CollaborationStatistics count(const Trace& trace, int num_threads, const nb::object& progress) {
  const int used_threads = threads_of(num_threads);
  return released(progress, [&](const Running& running) {
    return count_collaboration(trace, used_threads, running.progress);
  });
}

using CountArray = nb::ndarray<nb::numpy, const std::int64_t>;

// The counts of a layer in place; the array keeps the statistics alive.
CountArray coactivation(nb::handle self, std::int64_t layer) {
  const auto& statistics = nb::cast<const CollaborationStatistics&>(self);
  check_layer(layer, statistics.num_layers(), "this CollaborationStatistics");
  const CollaborationMatrix& counts = statistics.coactivation[static_cast<std::size_t>(layer)];
  const auto size = static_cast<std::size_t>(counts.rows());
  return CountArray(counts.all().data(), {size, size}, self);
}

nb::ndarray<nb::numpy, std::int64_t> num_tokens(const CollaborationStatistics& statistics) {
  return to_numpy(statistics.num_tokens);
}

nb::ndarray<nb::numpy, std::int32_t> collaborators(const CollaborationStatistics& statistics,
                                                   std::int64_t layer, std::int32_t top_t) {
  check_layer(layer, statistics.num_layers(), "this CollaborationStatistics");
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "these statistics hold loads only; collaborators need counts of pairs");
  return to_numpy(
      top_collaborators(statistics.coactivation[static_cast<std::size_t>(layer)], top_t));
}

constexpr char kStatisticsDoc[] =
    R"(How often experts were chosen together: exact counts for each MoE layer. :func:`count_collaboration` makes it.

The diagonal of a layer's counts is the load of each expert in tokens. Statistics of engines that record loads only
have nothing else (``has_pairs`` is False).

Source: the collaboration matrix of C2R (arXiv 2504.01337).

>>> header = c2r.TraceHeader(num_experts=3, top_k=2, layer_indices=[0])
>>> trace = c2r.Trace(header, [np.array([[0, 1], [0, 1], [0, 2]], np.int32)])
>>> statistics = c2r.count_collaboration(trace)
>>> statistics.coactivation(0).tolist()
[[3, 2, 1], [2, 2, 0], [1, 0, 1]])";

constexpr char kCoactivationDoc[] = R"(The counts of a layer, without a copy.

Args:
  layer: in [0, num_layers), the position of the layer and not the model's own index.

Returns:
  int64 [num_experts, num_experts], read-only: entry (a, b) counts the tokens that chose both; the diagonal is the load.

Raises:
  ValueError: there is no such layer.)";

constexpr char kCollaboratorsDoc[] = R"(The Top-T list of each expert of a layer.

Args:
  layer: in [0, num_layers).
  top_t: the length of a list, in [1, num_experts - 1].

Returns:
  int32 [num_experts, top_t]: the experts that were chosen together with e, most often first; equal counts go to the
  lower expert.

Raises:
  ValueError: the layer or top_t is out of range, or there are loads only.)";

}  // namespace

void add_collaboration(nb::module_& module) {
  nb::class_<CollaborationStatistics>(module, "CollaborationStatistics", kStatisticsDoc)
      .def_ro("header", &CollaborationStatistics::header,
              "What the counts say about the model, a :class:`TraceHeader`.")
      .def_ro("has_pairs", &CollaborationStatistics::has_pairs,
              "Whether pairs were counted, and not loads only.")
      .def_prop_ro("num_layers", &CollaborationStatistics::num_layers, "MoE layers.")
      .def_prop_ro("num_tokens", &num_tokens, nb::rv_policy::automatic,
                   "The tokens that were counted, int64 [num_layers].")
      .def("coactivation", &coactivation, nb::arg("layer"), kCoactivationDoc)
      .def("collaborators", &collaborators, nb::arg("layer"), nb::arg("top_t"), kCollaboratorsDoc)
      .def(
          "merge",
          [](CollaborationStatistics& self, const CollaborationStatistics& other) {
            merge(other, self);
          },
          nb::arg("other"), R"(Adds the counts of another trace of the same model.

Args:
  other: :class:`CollaborationStatistics`.

Raises:
  ValueError: the models differ, or only one has pairs.)")
      .def(
          "save",
          [](const CollaborationStatistics& self, const std::filesystem::path& path) {
            write_statistics(self, path);
          },
          nb::arg("path"),
          R"(Writes a statistics file, which ``c2r analyze`` and :func:`load_statistics` read.

Args:
  path: the file.

Raises:
  OSError: it cannot be written.)");
  module.def("count_collaboration", &count, nb::arg("trace"), nb::kw_only(),
             nb::arg("num_threads") = 0, nb::arg("progress") = nb::none());
  module.def("load_statistics", &read_statistics, nb::arg("path"), R"(Reads a statistics file.

Args:
  path: a file that ``c2r analyze -o`` or :meth:`CollaborationStatistics.save` has written.

Returns:
  :class:`CollaborationStatistics`.

Raises:
  OSError: the file cannot be read, or no tokens could have such counts.)");
}

}  // namespace c2r::python
