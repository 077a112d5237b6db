// Runs the conformance suite on ranks that are threads, and tests their failures.
#include "c2r/transport/in_process.h"

#include "c2r/core/testing.h"
#include "c2r/transport/conformance.h"
#include "c2r/transport/waiting_internal.h"

namespace c2r {
namespace {

using testing::error_of;

TransportCase in_process(std::int32_t ep_size) {
  return {fmt::format("ranks_{}", ep_size), ep_size,
          [=](auto timeout, const auto& body) { run_in_process(ep_size, body, timeout); }};
}

INSTANTIATE_TEST_SUITE_P(InProcess, TransportConformance,
                         ::testing::Values(in_process(1), in_process(2), in_process(3),
                                           in_process(8)),
                         [](const auto& test) { return test.param.name; });

// The time at which a part moved counts, not the time at which the timer is told of it.
TEST(StandstillTimer, StartsAnewWhenAPartMoved) {
  using std::chrono::milliseconds;
  StandstillTimer timer(milliseconds(1000));
  const auto first = timer.deadline();
  timer.moved(first - milliseconds(400));
  EXPECT_EQ(timer.deadline(), first + milliseconds(600));
  timer.moved(first - milliseconds(700));
  EXPECT_EQ(timer.deadline(), first + milliseconds(600));
  EXPECT_FALSE(timer.is_over());
}

TEST(RunInProcess, HoldsSixtyFourRanks) {
  run_in_process(64, [](Transport& t) {
    std::vector<std::int64_t> values{1};
    all_reduce(t, values, Reduction::kSum, "count the ranks");
    EXPECT_EQ(values[0], 64);
  });
}

TEST(RunInProcess, KeepsEveryRankBehindABarrierUntilAllAreThere) {
  std::atomic<int> num_arrived = 0;
  run_in_process(8, [&](Transport& t) {
    for (int round = 1; round <= 20; ++round) {
      ++num_arrived;
      barrier(t, "before");
      EXPECT_GE(num_arrived, 8 * round);
    }
  });
}

TEST(RunInProcess, NamesTheRankAndThePhaseOfAFailure) {
  const auto wrong_size = [](Transport& t) {
    const bool is_sender = t.rank() == RankId{0};
    Bytes bytes(is_sender ? 2 : 1);
    const std::vector<Outgoing> send{{RankId{1}, bytes}};
    const std::vector<Incoming> recv{{RankId{0}, bytes}};
    if (is_sender) t.start(send, {}, "layer 3 dispatch")->wait();
    if (!is_sender) t.start({}, recv, "layer 3 dispatch")->wait();
  };
  EXPECT_EQ(error_of([&] { run_in_process(2, wrong_size); }),
            "rank 1: layer 3 dispatch: rank 0 sent 2 bytes where 1 were expected");

  const auto wrong_phase = [](Transport& t) {
    barrier(t, t.rank() == RankId{0} ? "layer 3 combine" : "layer 3 dispatch");
  };
  const std::string message = error_of([&] { run_in_process(2, wrong_phase); });
  EXPECT_TRUE(message == "rank 0: layer 3 combine: rank 1 sent something else: layer 3 dispatch" ||
              message == "rank 1: layer 3 dispatch: rank 0 sent something else: layer 3 combine")
      << message;
}

TEST(RunInProcess, TellsWhoWasWaitedFor) {
  const auto one_is_late = [](Transport& t) {
    if (t.rank() != RankId{2}) barrier(t, "layer 3 dispatch");
  };
  const std::string message =
      error_of([&] { run_in_process(3, one_is_late, std::chrono::milliseconds(300)); });
  EXPECT_NE(message.find("layer 3 dispatch: nothing moved for 300 ms while waiting for rank 2 "
                         "(1 bytes from it, 1 bytes to it)"),
            std::string::npos)
      << message;
}

TEST(Scatter, RefusesMoreOrFewerPartsThanRanks) {
  const auto error = [](std::size_t num_parts) {
    return error_of([&] {
      run_in_process(3, [&](Transport& t) {
        std::vector<std::vector<std::int32_t>> parts;
        if (t.rank() == RankId{0}) parts.resize(num_parts, {4, 5});
        (void)scatter<std::int32_t>(t, parts, "scatter");
      });
    });
  };
  EXPECT_EQ(error(2), "rank 0: scatter: rank 0 has parts for 2 ranks, but there are 3");
  EXPECT_EQ(error(4), "rank 0: scatter: rank 0 has parts for 4 ranks, but there are 3");
}

TEST(ValuesOf, RefusesBytesThatAreNoWholeValues) {
  const std::vector<std::byte> bytes(7);
  EXPECT_EQ(values_of<std::int16_t>(std::span(bytes).first(6)).size(), 3U);
  EXPECT_EQ(error_of([&] { (void)values_of<std::int16_t>(bytes); }),
            "7 bytes were received where values of 2 bytes are expected");
}

TEST(RunInProcess, PassesOtherExceptionsOn) {
  EXPECT_THROW(run_in_process(2,
                              [](Transport& t) {
                                if (t.rank() == RankId{1}) throw std::bad_alloc();
                                barrier(t, "the end");
                              }),
               std::bad_alloc);
}

TEST(RunInProcess, EndsAtOnceIfARankCannotBeStarted) {
  C2R_SKIP_UNDER_SANITIZERS();
  const testing::RoomForFewThreads room;
  const std::string message = error_of([] {
    run_in_process(
        200, [](Transport& t) { barrier(t, "the end"); }, std::chrono::hours(1));
  });
  EXPECT_TRUE(message.starts_with("rank ")) << message;
  EXPECT_TRUE(message.ends_with(": cannot start its thread: Resource temporarily unavailable"))
      << message;
}

TEST(RunInProcess, RefusesEmptyGroupsAndTimeouts) {
  EXPECT_EQ(error_of([] { run_in_process(0, [](Transport&) {}); }),
            "ep_size is 0, but must be positive");
  EXPECT_EQ(error_of([] {
              run_in_process(
                  1, [](Transport&) {}, std::chrono::milliseconds(0));
            }),
            "the timeout is 0 ms, but must be positive");
}

}  // namespace
}  // namespace c2r
