// The version that `c2r --version` prints and every result file records.
#pragma once

#include <string>

namespace c2r {

/// @returns the version, the commit and the compiler of this library:
///          "c2r 0.1.0 (commit 1234567890ab, GNU 12.2.0)"
std::string version_text();

}  // namespace c2r
