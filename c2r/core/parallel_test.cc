// Tests that every task runs once, that errors reach the caller, and that pools work again.
#include "c2r/core/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(ParallelFor, RunsEveryTaskOnce) {
  for (const int num_threads : {1, 2, 3, 8}) {
    for (const std::int64_t num_tasks : {0, 1, 2, 7, 1000}) {
      SCOPED_TRACE(fmt::format("{} threads, {} tasks", num_threads, num_tasks));
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(num_tasks));
      parallel_for(num_tasks, num_threads, [&](std::int64_t task, int thread) {
        EXPECT_TRUE(0 <= thread && thread < num_threads);
        ++runs.at(static_cast<std::size_t>(task));
      });
      for (const auto& count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ParallelFor, GivesAThreadItsOwnScratchSpace) {
  constexpr int kNumThreads = 4;
  std::vector<std::atomic<bool>> is_in_use(kNumThreads);
  parallel_for(200, kNumThreads, [&](std::int64_t, int thread) {
    auto& in_use = is_in_use[static_cast<std::size_t>(thread)];
    EXPECT_FALSE(in_use.exchange(true)) << "two bodies at once on thread " << thread;
    std::this_thread::yield();
    in_use = false;
  });
}

TEST(ParallelFor, RethrowsTheErrorOfTheLowestTask) {
  for (const int num_threads : {1, 2, 4}) {
    for (int round = 0; round < 50; ++round) {
      const auto message = error_of([&] {
        parallel_for(100, num_threads, [&](std::int64_t task, int) {
          // The lowest failing task fails after a later one in even rounds, before it in odd ones.
          const bool is_slow = round % 2 == 0 ? task == 10 : task > 10;
          if (is_slow) std::this_thread::sleep_for(std::chrono::microseconds(200));
          if (task >= 10) throw Error(ErrorCode::kInvalidFile, fmt::format("task {}", task));
        });
      });
      ASSERT_EQ(message, "task 10") << num_threads << " threads";
    }
  }
}

TEST(ParallelFor, StartsNoTaskAfterAFailure) {
  for (const int num_threads : {1, 4}) {
    std::atomic<int> runs = 0;
    const auto body = [&](std::int64_t, int) {
      ++runs;
      throw Error(ErrorCode::kInvalidFile, "failed");
    };
    EXPECT_THROW(parallel_for(1'000'000, num_threads, body), Error);
    EXPECT_LE(runs, num_threads);  // each may have begun one
  }
}

TEST(ParallelFor, NeedsAThread) {
  EXPECT_EQ(error_of([] { parallel_for(1, 0, [](std::int64_t, int) {}); }),
            "num_threads is 0, but must be at least 1");
}

TEST(ThreadPool, RunsManyShortPiecesOneAfterAnother) {
  for (const int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads);
    EXPECT_EQ(pool.num_threads(), num_threads);
    std::int64_t sum = 0;
    for (std::int64_t round = 0; round < 2000; ++round) {
      std::vector<std::int64_t> squares(static_cast<std::size_t>(round % 4));
      pool.run(std::ssize(squares), [&](std::int64_t task, int thread) {
        EXPECT_TRUE(0 <= thread && thread < num_threads);
        squares[static_cast<std::size_t>(task)] = task * task;
      });
      for (const std::int64_t square : squares) sum += square;  // 0, 0, 1, 5
    }
    EXPECT_EQ(sum, 500 * 6);
  }
}

TEST(ThreadPool, WorksAgainAfterAnError) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(error_of([&] {
                pool.run(50, [](std::int64_t task, int) {
                  if (task >= 5) throw Error(ErrorCode::kInvalidFile, fmt::format("task {}", task));
                });
              }),
              "task 5");
  }
  EXPECT_EQ(error_of([] { ThreadPool none(0); }), "num_threads is 0, but must be at least 1");
}

TEST(ThreadPool, SaysThatAThreadCannotBeStarted) {
  C2R_SKIP_UNDER_SANITIZERS();
  const testing::RoomForFewThreads room;
  const std::string message = error_of([] { ThreadPool pool(1000); });
  EXPECT_TRUE(message.starts_with("cannot start thread ")) << message;
  EXPECT_TRUE(message.ends_with(" of 1000: Resource temporarily unavailable")) << message;
}

TEST(ThreadPool, CallsAnActionAfterEachTaskOfTheCallingThread) {
  for (const int num_threads : {1, 3}) {
    ThreadPool pool(num_threads);
    std::atomic<int> num_of_caller = 0;
    int num_actions = 0;
    pool.set_after_task([&] { ++num_actions; });
    const auto body = [&](std::int64_t, int thread) { num_of_caller += thread == 0 ? 1 : 0; };
    pool.run(100, body);
    pool.run(1, body);
    EXPECT_EQ(num_actions, num_of_caller);
    EXPECT_GE(num_actions, 1);
    pool.set_after_task([] { throw Error(ErrorCode::kTransport, "a rank is gone"); });
    EXPECT_EQ(error_of([&] { pool.run(1, body); }), "a rank is gone");
    pool.set_after_task({});
    pool.run(1, body);
  }
}

TEST(DefaultNumThreads, IsAtLeastOne) {
  EXPECT_GE(default_num_threads(), 1);
}

TEST(ThreadPool, RunsWhatTheActionAfterATaskAsksForOnTheCallingThread) {
  for (const int num_threads : {1, 3}) {
    ThreadPool pool(num_threads);
    const auto caller = std::this_thread::get_id();
    int num_actions = 0, num_nested = 0;
    std::atomic<int> num_tasks = 0;
    pool.set_after_task([&] {
      ++num_actions;
      pool.run(5, [&](std::int64_t task, int thread) {
        EXPECT_EQ(task, num_nested++ % 5);
        EXPECT_EQ(thread, 0);
        EXPECT_EQ(std::this_thread::get_id(), caller);
      });
    });
    pool.run(20, [&](std::int64_t, int) { ++num_tasks; });
    EXPECT_EQ(num_tasks, 20);
    EXPECT_EQ(num_nested, 5 * num_actions);
    EXPECT_TRUE(num_threads > 1 || num_actions == 20);
  }
}

}  // namespace
}  // namespace c2r
