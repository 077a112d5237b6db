#include "c2r/engine/deal.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

// Pieces 10, 11 11, 12 12 12 ...: the w-th has w + 1 numbers.
std::function<std::optional<Piece>()> some_pieces(int num_pieces) {
  return [num_pieces, next = 0]() mutable -> std::optional<Piece> {
    if (next == num_pieces) return std::nullopt;
    Piece piece(static_cast<std::size_t>(next + 1), 10 + next);
    ++next;
    return piece;
  };
}

std::function<std::optional<Piece>()> no_pieces() {
  return []() -> std::optional<Piece> {
    ADD_FAILURE() << "another rank was asked for work";
    return std::nullopt;
  };
}

// 4 pieces for 3 ranks: a full round, one with a piece for rank 0 only, and the end.
TEST(Deal, GivesPiecesInTheOrderOfRanksRoundByRound) {
  run_in_process(3, [](Transport& transport) {
    const auto me = static_cast<std::int32_t>(index(transport.rank()));
    const auto next = me == 0 ? some_pieces(4) : no_pieces();
    EXPECT_EQ(deal(&transport, next), Piece(static_cast<std::size_t>(me + 1), 10 + me));
    EXPECT_EQ(deal(&transport, next), me == 0 ? Piece(4, 13) : Piece{});
    EXPECT_EQ(deal(&transport, next), std::nullopt);
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

TEST(Deal, GivesOneProcessEveryPiece) {
  const auto next = some_pieces(2);
  EXPECT_EQ(deal(nullptr, next), (Piece{10}));
  EXPECT_EQ(deal(nullptr, next), (Piece{11, 11}));
  EXPECT_EQ(deal(nullptr, next), std::nullopt);
}

TEST(Deal, FailsOnEveryRankIfRankZeroCannotRead) {
  EXPECT_EQ(testing::error_of([] {
              run_in_process(3, [](Transport& transport) {
                (void)deal(&transport, []() -> std::optional<Piece> {
                  throw Error(ErrorCode::kInvalidFile, "text.jsonl:2: not JSON");
                });
              });
            }),
            "rank 0: text.jsonl:2: not JSON");
}

}  // namespace
}  // namespace c2r
