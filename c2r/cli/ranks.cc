// Finds out whether a launcher has started this process, and runs a body on every rank.
#include "c2r/cli/ranks.h"

#include <CLI/Error.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <thread>

#include "c2r/cli/app.h"
#include "c2r/cli/printable.h"
#include "c2r/core/error.h"
#include "c2r/placement/cluster.h"
#include "c2r/transport/in_process.h"
#ifdef C2R_HAVE_MPI
#include "c2r/transport/mpi/run_mpi.h"
#endif

namespace c2r::cli {
namespace {

constexpr const char* kRanksOption = "--ranks";

// The number of processes if a launcher has started this one, else nothing. 0: the launcher does
// not say how many.
std::optional<std::int32_t> num_launched() {
  for (const char* size : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {  // Open MPI; MPICH and Slurm
    if (const char* value = std::getenv(size)) return std::atoi(value);
  }
  if (std::getenv("PMIX_RANK") != nullptr) return 0;  // Slurm with PMIx
  return std::nullopt;
}

[[noreturn]] void refuse_on_all_ranks(const std::string& message) {
  if (prints_for_all_ranks()) std::cerr << message + "\n";
  throw CLI::RuntimeError(kUsage);
}

#ifdef C2R_HAVE_MPI
void run_launched(std::int32_t launched, const RankOptions& options,
                  const std::function<void(Transport&)>& body) {
  const auto checked_body = [&](Transport& transport) {
    C2R_REQUIRE(launched == 0 || transport.ep_size() == launched, kUnsupported,
                "mpirun has started {} processes, but MPI knows {}: this program was built with "
                "another MPI than this mpirun's",
                launched, transport.ep_size());
    body(transport);
    std::cout.flush();
  };
  run_mpi(checked_body, std::chrono::seconds(options.timeout_s),
          [](const std::string& line) { std::cerr << printable("c2r: " + line) + "\n"; });
}
#else
void run_launched(std::int32_t, const RankOptions&, const std::function<void(Transport&)>&) {
  C2R_THROW(kUnsupported, "mpirun has started this program, but it was built without MPI");
}
#endif

}  // namespace

void add_rank_options(CLI::App& command, RankOptions& options) {
  command
      .add_option(kRanksOption, options.num_ranks,
                  "ranks, as threads of this process; under mpirun, its processes are the ranks")
      ->check(in_range(1, kMaxRanks))
      ->type_name("N");
  command
      .add_option(
          "--timeout", options.timeout_s,
          "seconds without progress after which a rank stops waiting for another; must be longer "
          "than any computation between two exchanges")
      ->check(in_range(1, 86400))
      ->capture_default_str()
      ->type_name("S");
}

bool has_rank_options(const CLI::App& command) {
  return command.get_option_no_throw(kRanksOption) != nullptr ||
         std::ranges::any_of(command.get_subcommands({}),
                             [](const CLI::App* below) { return has_rank_options(*below); });
}

void add_chunks_option(CLI::App& command, std::optional<std::int32_t>& num_chunks) {
  command
      .add_option(
          "--chunks", num_chunks,
          "parts of a batch, of which one is sent while another is computed; by default their "
          "number follows from the times of an earlier batch")
      ->check(in_range(1, 1024))
      ->type_name("N");
}

bool is_under_mpirun() {
  return num_launched().has_value();
}

bool prints_for_all_ranks() {
  for (const char* rank : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
    const char* const value = std::getenv(rank);
    if (value == nullptr) continue;
    if (std::atoi(value) == 0) return true;
    std::this_thread::sleep_for(std::chrono::seconds(1));
    return false;
  }
  return true;
}

void refuse_ranks(const std::string& command) {
  const auto launched = num_launched();
  if (!launched || *launched <= 1) return;
  refuse_on_all_ranks(
      fmt::format("c2r {}: runs in one process, but mpirun has started {}; start it without mpirun",
                  command, *launched));
}

void run_ranks(const RankOptions& options, const std::function<void(Transport&)>& body) {
  if (const auto launched = num_launched()) {
    if (options.num_ranks != 0 && *launched != 0 && options.num_ranks != *launched) {
      refuse_on_all_ranks(fmt::format("c2r: --ranks is {}, but mpirun has started {} processes",
                                      options.num_ranks, *launched));
    }
    return run_launched(*launched, options, body);
  }
  run_in_process(std::max(options.num_ranks, 1), body, std::chrono::seconds(options.timeout_s));
}

}  // namespace c2r::cli
