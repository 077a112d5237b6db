// An all-to-all of equal parts, by our transport and by the two plain ways of MPI, in one run:
//   mpirun -n 4 transport_mpi_bench [ROUNDS [LARGEST_MB]]
// Prints, for parts of 1, 4, 16 and 64 MB, what a rank sends to others and at the same time
// receives, in MB/s (1e6 bytes), from the slowest rank's time: the median over the rounds, and the
// best round. The ways take turns within a round. What stays on a rank is copied too, and not
// counted. Fails with one rank, which sends nothing, and where MPI_Alltoallv cannot count a rank's
// offsets, from 35 ranks with 64 MB on.
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/mpi/run_mpi.h"

namespace c2r {
namespace {

// One rank's memory: a run of `part_bytes` for each rank.
struct Problem {
  std::size_t part_bytes;
  std::vector<std::byte> send, recv;  // [ep_size * part_bytes]
};

void by_transport(Transport& t, Problem& p) {
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (std::int32_t peer = 0; peer < t.ep_size(); ++peer) {
    const std::size_t at = std::size_t(peer) * p.part_bytes;
    send.push_back({RankId{peer}, std::span(p.send).subspan(at, p.part_bytes)});
    recv.push_back({RankId{peer}, std::span(p.recv).subspan(at, p.part_bytes)});
  }
  t.start(send, recv, "exchange")->wait();
}

void by_alltoallv(Transport& t, Problem& p) {
  std::vector<int> counts(std::size_t(t.ep_size()), int(p.part_bytes)), at(counts.size());
  for (std::size_t peer = 0; peer < at.size(); ++peer) at[peer] = int(peer * p.part_bytes);
  MPI_Alltoallv(p.send.data(), counts.data(), at.data(), MPI_BYTE, p.recv.data(), counts.data(),
                at.data(), MPI_BYTE, MPI_COMM_WORLD);
}

void by_isend_irecv(Transport& t, Problem& p) {
  std::vector<MPI_Request> requests;
  for (int peer = 0; peer < t.ep_size(); ++peer) {
    MPI_Irecv(p.recv.data() + std::size_t(peer) * p.part_bytes, int(p.part_bytes), MPI_BYTE, peer,
              0, MPI_COMM_WORLD, &requests.emplace_back());
  }
  for (int peer = 0; peer < t.ep_size(); ++peer) {
    MPI_Isend(p.send.data() + std::size_t(peer) * p.part_bytes, int(p.part_bytes), MPI_BYTE, peer,
              0, MPI_COMM_WORLD, &requests.emplace_back());
  }
  MPI_Waitall(int(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

struct Way {
  const char* name;
  void (*exchange)(Transport&, Problem&);
};
constexpr std::array<Way, 3> kWays = {{{"c2r transport", by_transport},
                                       {"MPI_Alltoallv", by_alltoallv},
                                       {"MPI_Isend/Irecv", by_isend_irecv}}};

std::byte expected(std::int32_t src, std::int32_t dst, std::size_t i) {
  return std::byte((std::size_t(src) * 31 + std::size_t(dst) * 7 + i + (i >> 8)) & 0xff);
}

Problem make_problem(const Transport& t, std::size_t part_bytes) {
  Problem p{.part_bytes = part_bytes};
  p.send.resize(std::size_t(t.ep_size()) * part_bytes);
  p.recv.resize(p.send.size());
  for (std::size_t i = 0; i < p.send.size(); ++i) {
    p.send[i] = expected(std::int32_t(t.rank()), std::int32_t(i / part_bytes), i % part_bytes);
  }
  return p;
}

void verify(Transport& t, Problem& p, const Way& way) {
  std::ranges::fill(p.recv, std::byte{});
  way.exchange(t, p);
  for (std::size_t i = 0; i < p.recv.size(); ++i) {
    C2R_REQUIRE(p.recv[i] == expected(std::int32_t(i / p.part_bytes), std::int32_t(t.rank()),
                                      i % p.part_bytes),
                kTransport, "{} delivered wrong bytes", way.name);
  }
}

// The slowest rank's time in nanoseconds.
std::int64_t timed(Transport& t, Problem& p, const Way& way) {
  barrier(t, "before a round");
  const auto start = std::chrono::steady_clock::now();
  way.exchange(t, p);
  std::int64_t ns = std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
  all_reduce(t, {&ns, 1}, Reduction::kMax, "after a round");
  return ns;
}

void measure(Transport& t, std::size_t part_bytes, int num_rounds) {
  Problem p = make_problem(t, part_bytes);
  for (const Way& way : kWays) verify(t, p, way);
  std::array<std::vector<std::int64_t>, kWays.size()> times;
  for (int round = 0; round < num_rounds; ++round) {
    for (std::size_t way = 0; way < kWays.size(); ++way) {
      times[way].push_back(timed(t, p, kWays[way]));
    }
  }
  if (t.rank() != RankId{0}) return;
  const auto num_bytes = double(part_bytes) * (t.ep_size() - 1);
  std::array<double, kWays.size()> median{}, best{};  // MB/s
  for (std::size_t way = 0; way < kWays.size(); ++way) {
    std::ranges::sort(times[way]);
    median[way] = num_bytes * 1e3 / double(times[way][times[way].size() / 2]);
    best[way] = num_bytes * 1e3 / double(times[way].front());
    fmt::print("{:>11} {:<16} {:>10.1f} {:>10.1f}\n", part_bytes / 1'000'000, kWays[way].name,
               median[way], best[way]);
  }
  fmt::print("{:>11} {:<16} {:>10.2f} {:>10.2f}\n", "", "ratio",
             median[0] / std::max(median[1], median[2]), best[0] / std::max(best[1], best[2]));
  std::fflush(stdout);
}

int positive(const char* text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  C2R_REQUIRE(error == std::errc() && *end == '\0' && value > 0, kInvalidArgument,
              "'{}' is not a positive number", text);
  return value;
}

// The parts to measure, in MB, up to `largest`.
std::vector<int> sizes_up_to(int largest, std::int32_t ep_size) {
  C2R_REQUIRE(ep_size > 1, kInvalidArgument,
              "one rank sends nothing to others; start it with mpirun -n 2, or more");
  std::vector<int> sizes;
  for (const int megabytes : {1, 4, 16, 64}) {
    if (megabytes > largest) break;
    // Counts and offsets of MPI_Alltoallv are int.
    C2R_REQUIRE(
        megabytes * std::int64_t{1'000'000} * (ep_size - 1) <= std::numeric_limits<int>::max(),
        kInvalidArgument,
        "{} parts of {} MB are more than MPI_Alltoallv can count; give a LARGEST_MB below {}",
        ep_size, megabytes, megabytes);
    sizes.push_back(megabytes);
  }
  return sizes;
}

}  // namespace
}  // namespace c2r

int main(int argc, char** argv) {
  using namespace c2r;
  const auto bench = [&](Transport& t) {
    const int num_rounds = argc > 1 ? positive(argv[1]) : 7;
    const int largest = argc > 2 ? positive(argv[2]) : 64;
    const std::vector<int> sizes = sizes_up_to(largest, t.ep_size());
    if (t.rank() == RankId{0}) {
      fmt::print("{} ranks, {} rounds\nMB per pair way              MB/s median       best\n",
                 t.ep_size(), num_rounds);
    }
    for (const int megabytes : sizes) {
      measure(t, std::size_t(megabytes) * 1'000'000, num_rounds);
    }
  };
  run_mpi(bench, std::chrono::seconds(60),
          [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
}
