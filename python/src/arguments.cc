// Checks of arguments that several functions of the extension module take.
#include "python/src/arguments.h"

#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/io/json.h"

namespace c2r::python {

Cluster cluster_of(const std::string& text) {
  if (!text.starts_with("{")) return read_cluster(text);
  return cluster_from_json(parse_json(text, "cluster"), "cluster");
}

int threads_of(int num_threads) {
  C2R_REQUIRE(num_threads >= 0, kInvalidArgument, "num_threads is {}, but must not be negative",
              num_threads);
  return num_threads > 0 ? num_threads : default_num_threads();
}

void check_layer(std::int64_t layer, std::int64_t num_layers, const std::string& owner) {
  C2R_REQUIRE(0 <= layer && layer < num_layers, kInvalidArgument, "{} has layers 0 to {}, not {}",
              owner, num_layers - 1, layer);
}

}  // namespace c2r::python
