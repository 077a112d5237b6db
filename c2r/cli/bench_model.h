// `c2r bench model`, a part of `c2r bench`.
#pragma once

#include <CLI/App.hpp>

namespace c2r::cli {

/// Registers it as a command below `bench`.
void add_bench_model(CLI::App& bench);

}  // namespace c2r::cli
