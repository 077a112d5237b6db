#include "c2r/cli/version.h"

#include <fmt/core.h>

namespace c2r::cli {

std::string version_text() {
  return fmt::format("c2r {} (commit {}, {})", C2R_VERSION, C2R_COMMIT, C2R_COMPILER);
}

}  // namespace c2r::cli
