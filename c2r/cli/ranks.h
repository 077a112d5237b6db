// The ranks of a command: processes that mpirun has started, or threads of this process.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "c2r/transport/transport.h"

namespace c2r::cli {

struct RankOptions {
  std::int32_t num_ranks = 0;  // 0: the processes that mpirun has started, else one rank
  std::int32_t timeout_s = 30;
};

/// Adds --ranks and --timeout. has_rank_options() is true of the command then.
void add_rank_options(CLI::App& command, RankOptions& options);

/// @returns whether add_rank_options() was called for the command or for one below it
bool has_rank_options(const CLI::App& command);

/// Adds --chunks: the number of chunks of a pass or a batch. Without it the number is chosen.
void add_chunks_option(CLI::App& command, std::optional<std::int32_t>& num_chunks);

/// @returns whether mpirun or srun has started this process
bool is_under_mpirun();

/// For messages that every process of a launcher would print, before ranks can talk to each other.
/// @returns whether this process is to print it: rank 0, and each process if the launcher does not
///          number them. The others first wait for a second, because a launcher ends all processes
///          as soon as one has failed.
bool prints_for_all_ranks();

/// For commands without ranks: each process would do the same work and write the same file.
/// @throws CLI::RuntimeError, after one line on standard error, if mpirun has started this program
///         several times
void refuse_ranks(const std::string& command);

/// Calls `body` once for each rank that is in this process: on a thread each, or for the one rank
/// of a process under mpirun.
///
/// Under mpirun, a body that throws ends all ranks with exit status 1, after a line on standard
/// error that names the rank. Otherwise the first failure is rethrown.
/// @throws CLI::RuntimeError, after one line on standard error, if --ranks contradicts mpirun
/// @throws Error(kUnsupported) if this program and mpirun are of different MPIs
void run_ranks(const RankOptions& options, const std::function<void(Transport&)>& body);

}  // namespace c2r::cli
