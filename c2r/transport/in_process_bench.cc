// Measures how the times of an exchange and of a group in one process grow with the number of
// ranks.
#include <benchmark/benchmark.h>

#include <vector>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

// Starts a group, meets in one barrier and ends it: one thread for each rank, one channel for each
// pair.
void BM_RunInProcess(benchmark::State& state) {
  const auto ep_size = std::int32_t(state.range(0));
  for (auto _ : state) run_in_process(ep_size, [](Transport& t) { barrier(t, "all are there"); });
  state.counters["us_per_rank"] =
      benchmark::Counter(double(state.iterations()) * ep_size * 1e-6,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_RunInProcess)->ArgName("ep_size")->RangeMultiplier(2)->Range(1, 64)->UseRealTime();

// 64 exchanges of 4 KiB between all pairs. The time to start the group, measured above, is
// included.
void BM_AllToAll(benchmark::State& state) {
  const auto ep_size = std::int32_t(state.range(0));
  constexpr std::size_t kPartBytes = 4096;
  constexpr int kExchanges = 64;
  const auto body = [](Transport& t) {
    const std::vector<std::byte> sent(kPartBytes, std::byte(index(t.rank())));
    std::vector<std::byte> received(kPartBytes * std::size_t(t.ep_size()));
    std::vector<Outgoing> send;
    std::vector<Incoming> recv;
    for (std::int32_t peer = 0; peer < t.ep_size(); ++peer) {
      send.push_back({RankId{peer}, sent});
      recv.push_back(
          {RankId{peer}, std::span(received).subspan(std::size_t(peer) * kPartBytes, kPartBytes)});
    }
    for (int i = 0; i < kExchanges; ++i) t.start(send, recv, "exchange")->wait();
    for (std::size_t i = 0; i < received.size(); ++i) {
      C2R_REQUIRE(received[i] == std::byte(i / kPartBytes), kTransport, "byte {} is wrong", i);
    }
  };
  for (auto _ : state) {
    try {
      run_in_process(ep_size, body);
    } catch (const Error& e) {
      return state.SkipWithError(e.what());
    }
  }
  const double num_messages = double(state.iterations()) * kExchanges * ep_size * ep_size;
  state.counters["us_per_message"] = benchmark::Counter(
      num_messages * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_AllToAll)->ArgName("ep_size")->RangeMultiplier(2)->Range(1, 64)->UseRealTime();

}  // namespace
}  // namespace c2r
