// Tests of how work items are distributed over ranks.
#include "c2r/engine/ranks/distribute.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

// Items 10, 11 11, 12 12 12 ...: the w-th has w + 1 numbers.
std::function<std::optional<WorkItem>()> some_items(int num_items) {
  return [num_items, next = 0]() mutable -> std::optional<WorkItem> {
    if (next == num_items) return std::nullopt;
    WorkItem item(static_cast<std::size_t>(next + 1), 10 + next);
    ++next;
    return item;
  };
}

std::function<std::optional<WorkItem>()> no_items() {
  return []() -> std::optional<WorkItem> {
    ADD_FAILURE() << "another rank was asked for work";
    return std::nullopt;
  };
}

// 4 items for 3 ranks: a full round, one with an item for rank 0 only, and the end.
TEST(Distribute, GivesItemsInTheOrderOfRanksRoundByRound) {
  run_in_process(3, [](Transport& transport) {
    const auto me = static_cast<std::int32_t>(index(transport.rank()));
    const auto next = me == 0 ? some_items(4) : no_items();
    EXPECT_EQ(distribute(&transport, next), WorkItem(static_cast<std::size_t>(me + 1), 10 + me));
    EXPECT_EQ(distribute(&transport, next), me == 0 ? WorkItem(4, 13) : WorkItem{});
    EXPECT_EQ(distribute(&transport, next), std::nullopt);
    // docs/cost_model.md: per round two messages from rank 0 to each other: 8 bytes, and 4 for each
    // number and 4 more.
    for (std::int32_t peer = 0; peer < 3; ++peer) {
      const auto p = static_cast<std::size_t>(peer);
      const bool is_sent = me == 0 && peer != 0;
      EXPECT_EQ(transport.sent().num_messages[p], is_sent ? 3 * 2 : 0);
      EXPECT_EQ(transport.sent().num_bytes[p], is_sent ? 3 * (8 + 4) + 4 * (peer + 1) : 0);
    }
  });
}

TEST(Distribute, GivesOneProcessEveryItem) {
  const auto next = some_items(2);
  EXPECT_EQ(distribute(nullptr, next), (WorkItem{10}));
  EXPECT_EQ(distribute(nullptr, next), (WorkItem{11, 11}));
  EXPECT_EQ(distribute(nullptr, next), std::nullopt);
}

// The error of `next`, which every rank throws, after which the transport still works.
std::string agreed_error_of(const std::function<std::optional<WorkItem>()>& next) {
  std::string error;
  run_in_process(3, [&](Transport& transport) {
    const std::string mine = testing::error_of([&] { (void)distribute(&transport, next); });
    std::vector<std::int64_t> length{std::ssize(mine)};
    all_reduce(transport, length, Reduction::kSum, "afterwards");
    EXPECT_EQ(length[0], 3 * std::ssize(mine)) << mine;
    if (transport.rank() == RankId{0}) error = mine;
  });
  return error;
}

TEST(Distribute, FailsAlikeOnEveryRankIfRankZeroCannotRead) {
  EXPECT_EQ(agreed_error_of([]() -> std::optional<WorkItem> {
              throw Error(ErrorCode::kInvalidFile, "text.jsonl:2: not JSON");
            }),
            "text.jsonl:2: not JSON");
}

TEST(Distribute, RefusesAnEmptyItem) {
  // The second item, so that the first is not the one that is checked.
  EXPECT_EQ(agreed_error_of(
                [next = 0]() mutable { return std::optional(WorkItem(next++ == 0 ? 1 : 0)); }),
            "a work item is empty, but must have at least one integer");
}

}  // namespace
}  // namespace c2r
