// Collaboration statistics for Python.
#include "c2r/collaboration/collaboration.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "c2r/collaboration/collaborators.h"
#include "c2r/collaboration/metrics.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "python/src/arrays.h"
#include "python/src/bindings.h"
#include "python/src/released.h"

namespace c2r::python {
namespace {

CollaborationStatistics count(const Trace& trace, int num_threads, const nb::object& progress) {
  C2R_REQUIRE(num_threads >= 0, kInvalidArgument, "num_threads is {}, but must not be negative",
              num_threads);
  return released(progress, [&](const Running& running) {
    return count_collaboration(trace, num_threads > 0 ? num_threads : default_num_threads(),
                               running.progress);
  });
}

// The counts of a layer in place; the array keeps the statistics alive.
nb::object coactivation(nb::handle self, std::int64_t layer) {
  const auto& statistics = nb::cast<const CollaborationStatistics&>(self);
  C2R_REQUIRE(0 <= layer && layer < statistics.num_layers(), kInvalidArgument,
              "the statistics have layers 0 to {}, not {}", statistics.num_layers() - 1, layer);
  const CollaborationMatrix& counts = statistics.coactivation[static_cast<std::size_t>(layer)];
  const auto size = static_cast<std::size_t>(counts.rows());
  return nb::cast(
      nb::ndarray<nb::numpy, const std::int64_t>(counts.all().data(), {size, size}, self));
}

nb::object num_tokens(const CollaborationStatistics& statistics) {
  return nb::cast(to_numpy(statistics.num_tokens));
}

nb::object collaborators(const CollaborationStatistics& statistics, std::int64_t layer,
                         std::int32_t top_t) {
  C2R_REQUIRE(0 <= layer && layer < statistics.num_layers(), kInvalidArgument,
              "the statistics have layers 0 to {}, not {}", statistics.num_layers() - 1, layer);
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "these statistics hold loads only; collaborators need counts of pairs");
  const Matrix<ExpertId> ranked =
      rank_collaborators(statistics.coactivation[static_cast<std::size_t>(layer)]);
  C2R_REQUIRE(1 <= top_t && top_t <= ranked.cols(), kInvalidArgument,
              "top_t is {}, but must be in [1, {}]: an expert has {} others", top_t, ranked.cols(),
              ranked.cols());
  Matrix<ExpertId> lists(ranked.rows(), top_t);
  for (std::int64_t e = 0; e < ranked.rows(); ++e) {
    std::ranges::copy_n(ranked.row(e).begin(), top_t, lists.row(e).begin());
  }
  return nb::cast(to_numpy(std::move(lists)));
}

}  // namespace

void add_collaboration(nb::module_& module) {
  nb::class_<CollaborationStatistics>(module, "CollaborationStatistics")
      .def_ro("header", &CollaborationStatistics::header)
      .def_ro("has_pairs", &CollaborationStatistics::has_pairs)
      .def_prop_ro("num_layers", &CollaborationStatistics::num_layers)
      .def_prop_ro("num_tokens", &num_tokens)
      .def("coactivation", &coactivation, nb::arg("layer"))
      .def("collaborators", &collaborators, nb::arg("layer"), nb::arg("top_t"))
      .def("merge", [](CollaborationStatistics& self,
                       const CollaborationStatistics& other) { merge(other, self); })
      .def("save", [](const CollaborationStatistics& self, const std::filesystem::path& path) {
        write_statistics(self, path);
      });
  module.def("count_collaboration", &count, nb::arg("trace"), nb::kw_only(),
             nb::arg("num_threads") = 0, nb::arg("progress") = nb::none());
  module.def("read_statistics", &read_statistics, nb::arg("path"));
}

}  // namespace c2r::python
