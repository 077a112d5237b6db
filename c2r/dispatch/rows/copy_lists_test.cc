// What ranks tell each other: lists arrive as they were, and a peer that disagrees is an Error.
#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/dispatch/rows/copy_lists_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

constexpr ListRules kRules = {.fingerprint = 7, .num_slots = 3};
const std::vector<RankId> kBoth = {RankId{0}, RankId{1}};

CopyList list_of(std::initializer_list<std::tuple<int, int, float>> choices) {
  CopyList list;
  for (const auto& [item, slot, weight] : choices) list.add(item, std::uint16_t(slot), weight);
  return list;
}

// Rank 1 sends `lists` under `rules` to rank 0. @returns what rank 0 says of it
std::string answer_to(const CopyList& list, const ListRules& rules) {
  return testing::error_of([&] {
    run_in_process(2, [&](Transport& transport) {
      const bool is_sender = transport.rank() == RankId{1};
      std::vector<CopyList> out(2), in(2);
      if (is_sender) out[0] = list;
      const ListPair batch{out, in};
      exchange_lists(transport, kBoth, is_sender ? rules : kRules, {&batch, 1}, "layer 3");
    });
  });
}

// The same for rank 1 that announces `numbers` instead of the counts of one batch.
template <class Exchange>
std::string answer_to_counts(const std::vector<std::int64_t>& numbers, const Exchange& exchange) {
  return testing::error_of([&] {
    run_in_process(2, [&](Transport& transport) {
      std::vector<CopyList> out(2), in(2);
      const ListPair batch{out, in};
      if (transport.rank() == RankId{0}) {
        exchange(transport, kBoth, kRules, std::span(&batch, 1), "layer 3");
        return;
      }
      std::vector<std::int64_t> received(numbers.size());
      const std::vector<Outgoing> send{{RankId{0}, std::as_bytes(std::span(numbers))}};
      const std::vector<Incoming> recv{{RankId{0}, std::as_writable_bytes(std::span(received))}};
      transport.start(send, recv, "layer 3 counts")->wait();
    });
  });
}

TEST(CopyList, KeepsAnItemsChoicesTogether) {
  const CopyList list = list_of({{4, 2, 0.5F}, {4, 0, 0.25F}, {6, 1, 1.0F}});
  EXPECT_EQ(list.item, (std::vector<std::int32_t>{4, 6}));
  EXPECT_EQ(list.num_choices, (std::vector<std::uint8_t>{2, 1}));
  EXPECT_EQ(list.slot, (std::vector<std::uint16_t>{2, 0, 1}));
  EXPECT_EQ(list.weight, (std::vector<float>{0.5F, 0.25F, 1.0F}));
}

TEST(ExchangeLists, DeliversTheListsOfEveryBatchAndCountsTheirBytes) {
  run_in_process(2, [](Transport& transport) {
    const auto me = index(transport.rank()), other = 1 - me;
    std::vector<CopyList> first_out(2), first_in(2), second_out(2), second_in(2);
    first_out[0] = list_of({{0, int(me), 1.0F}});
    first_out[1] = list_of({{0, 2, 0.5F}, {0, int(me), 0.25F}, {3, 1, 2.0F}});
    second_out[other] = list_of({{1, 1, float(me)}});
    const ListPair batches[] = {{first_out, first_in}, {second_out, second_in}};
    exchange_lists(transport, kBoth, kRules, batches, "layer 3");
    const std::int64_t counts = std::int64_t{8} * (1 + 2 * 2);
    const std::int64_t to_other = me == 0 ? (2 + 3 * 6) + (1 + 6) : (1 + 6) + (1 + 6);
    EXPECT_EQ(transport.sent().num_bytes[other], counts + to_other);
    EXPECT_EQ(transport.sent().num_messages[other], 2);
    // What comes from rank r is what rank r, made like this one, has sent to this one.
    for (std::size_t r = 0; r < 2; ++r) {
      const std::uint16_t its_mark = std::uint16_t(r);
      EXPECT_EQ(first_in[r].slot, me == 0 ? (std::vector<std::uint16_t>{its_mark})
                                          : (std::vector<std::uint16_t>{2, its_mark, 1}));
      EXPECT_EQ(first_in[r].num_choices, first_out[me].num_choices);
      EXPECT_EQ(first_in[r].weight, first_out[me].weight);
      EXPECT_EQ(second_in[r].weight, r == me ? std::vector<float>{} : std::vector{float(r)});
    }
  });
}

TEST(ExchangeLists, RefusesWhatIsNoList) {
  EXPECT_EQ(answer_to(list_of({{0, 3, 1.0F}}), {.fingerprint = 7, .num_slots = 4}),
            "rank 0: layer 3: rank 1 chose slot 3, but there are 3");
  CopyList empty_copy = list_of({{0, 1, 1.0F}, {0, 2, 1.0F}, {1, 0, 1.0F}});
  empty_copy.num_choices = {0, 3};
  EXPECT_EQ(answer_to(empty_copy, kRules),
            "rank 0: layer 3: rank 1 sent a copy for 0 choices, but they are 1 to 32");
  CopyList wrong_sum = list_of({{0, 1, 1.0F}, {0, 2, 1.0F}, {1, 0, 1.0F}});
  wrong_sum.num_choices = {1, 1};
  EXPECT_EQ(answer_to(wrong_sum, kRules),
            "rank 0: layer 3: rank 1 announced 3 choices, but its copies have 2");
}

TEST(ExchangeLists, RefusesOtherOptionsAndImpossibleCounts) {
  const auto answer = [](std::vector<std::int64_t> numbers) {
    return answer_to_counts(numbers, exchange_lists);
  };
  const std::string disagrees =
      "rank 0: layer 3: rank 1 has another placement, cluster, mode, replica rule or row type than "
      "this rank";
  EXPECT_EQ(answer({8, 0, 0}), disagrees);
  EXPECT_EQ(answer({7, -1, 0}), "rank 0: layer 3: rank 1 announced -1 copies for 0 choices");
  EXPECT_EQ(answer({7, 5, 4}), "rank 0: layer 3: rank 1 announced 5 copies for 4 choices");
  EXPECT_EQ(answer({7, 1, 33}), "rank 0: layer 3: rank 1 announced 1 copies for 33 choices");
  EXPECT_EQ(answer({7, std::int64_t{1} << 31, std::int64_t{1} << 31}),
            "rank 0: layer 3: rank 1 announced 2147483648 copies for 2147483648 choices");
  const auto slots = [](std::vector<std::int64_t> numbers) {
    return answer_to_counts(numbers, exchange_slot_counts);
  };
  EXPECT_EQ(slots({8, 0, 0, 0}), disagrees);
  EXPECT_EQ(slots({7, 0, -1, 0}), "rank 0: layer 3: rank 1 announced -1 copies for slot 1");
  EXPECT_EQ(slots({7, 2, 0, (std::int64_t{1} << 31) - 2}),
            "rank 0: layer 3: rank 1 announced 2147483646 copies for slot 2");
}

}  // namespace
}  // namespace c2r
