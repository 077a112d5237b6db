// The commands of the `c2r` program.
#pragma once

#include <CLI/App.hpp>

#include "c2r/cli/run.h"

namespace c2r::cli {

/// Each function registers a command: its options, its help and its work.
void add_analyze(CLI::App& app);
void add_collaborators(CLI::App& app);
void add_import(CLI::App& app);
void add_plan(CLI::App& app);
void add_simulate(CLI::App& app);
void add_compare(CLI::App& app);
void add_report(CLI::App& app);
void add_export(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_inspect(CLI::App& app);
void add_profile(CLI::App& app);
void add_score(CLI::App& app);
void add_generate(CLI::App& app);
void add_permute(CLI::App& app);
void add_bench(CLI::App& app, MakeCudaDevice make_cuda_device);

/// Registers `model` as a command below `bench`.
void add_bench_model(CLI::App& bench);

}  // namespace c2r::cli
