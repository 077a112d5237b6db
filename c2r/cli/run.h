// The function that main() calls. It is not in app.h, whose headers are slow to compile.
#pragma once

namespace c2r::cli {

/// Runs the program.
/// @returns the exit status: 0 done, 1 failed, 2 used wrongly
int run(int argc, const char* const* argv);

}  // namespace c2r::cli
