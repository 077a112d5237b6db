// The version text, whose parts are definitions of this file alone (cmake/c2r_module.cmake).
#include "c2r/core/version.h"

#include <fmt/core.h>

namespace c2r {

std::string version_text() {
  return fmt::format("c2r {} (commit {}, {})", C2R_VERSION, C2R_COMMIT, C2R_COMPILER);
}

}  // namespace c2r
