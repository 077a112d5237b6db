// A rank of a run that goes wrong as told, for failures_test.py:
//   failing_rank HOW PHASE FAILING_RANK TIMEOUT_MS
// HOW: throw, kill (SIGKILL), stop (SIGSTOP), leave (exit without a word), or none. PHASE: where.
// Each layer has the phases of expert parallelism: counts, dispatch, combine; "end" comes after
// all, and "start" before MPI starts.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/mpi/run_mpi.h"

namespace {

using namespace c2r;

void fail(std::string_view how) {
  fmt::print(stderr, "failing now\n");
  if (how == "throw") throw Error(ErrorCode::kInvalidFile, "the shard is lost");
  if (how == "leave") _exit(3);
  if (how == "kill") raise(SIGKILL);
  if (how == "stop") raise(SIGSTOP);
}

// By the variables of Open MPI and MPICH, which say it before MPI starts.
bool is_launched_as(std::string_view rank) {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK"}) {
    if (const char* const value = std::getenv(name)) return rank == value;
  }
  return false;
}

void exchange_with_all(Transport& t, const std::string& label) {
  const auto n = std::size_t(t.ep_size());
  const std::size_t part_bytes = 100'000;
  const std::vector<std::byte> sent(part_bytes);
  std::vector<std::byte> received(n * part_bytes);
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (std::size_t peer = 0; peer < n; ++peer) {
    send.push_back({RankId{std::int32_t(peer)}, sent});
    recv.push_back(
        {RankId{std::int32_t(peer)}, std::span(received).subspan(peer * part_bytes, part_bytes)});
  }
  t.start(send, recv, label)->wait();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::string_view how = argv[1], phase = argv[2];
  const std::size_t failing_rank = std::strtoul(argv[3], nullptr, 10);
  if (phase == "start" && is_launched_as(argv[3])) fail(how);
  const auto body = [&](Transport& t) {
    const auto enter = [&](const std::string& label) {
      if (how != "none" && index(t.rank()) == failing_rank && label == phase) fail(how);
      return label;
    };
    for (int layer = 0; layer < 3; ++layer) {
      std::vector<std::int64_t> counts{1};
      all_reduce(t, counts, Reduction::kSum, enter(fmt::format("layer {} counts", layer)));
      exchange_with_all(t, enter(fmt::format("layer {} dispatch", layer)));
      exchange_with_all(t, enter(fmt::format("layer {} combine", layer)));
    }
    enter("end");
    if (t.rank() == RankId{0}) fmt::print(stderr, "all layers done\n");
  };
  run_mpi(body, std::chrono::milliseconds(std::strtol(argv[4], nullptr, 10)),
          [](const std::string& line) { fmt::print(stderr, "failing_rank: {}\n", line); });
}
