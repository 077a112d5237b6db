// Tests of the parts that a trace is split into.
#include "c2r/trace/sequence_split.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

// Five sequences of 1, 2, 3, 4 and 5 tokens.
Trace five_sequences() {
  const auto path = testing::temporary_path("trace.safetensors");
  TraceWriter writer(path, {.model = "m", .num_experts = 2, .top_k = 1, .layer_indices = {0}},
                     false);
  for (int length = 1; length <= 5; ++length) {
    writer.start_sequence();
    writer.append(0, std::vector<ExpertId>(static_cast<std::size_t>(length), ExpertId{0}), {}, "");
  }
  writer.finish();
  return Trace(path);
}

using Ranges = std::vector<TokenRange>;

TEST(RangesOf, AreWholeSequences) {
  const Trace trace = five_sequences();
  EXPECT_EQ(ranges_of(trace, SequencePart::kAll), (Ranges{{0, 15}}));
  EXPECT_EQ(ranges_of(trace, SequencePart::kEven), (Ranges{{0, 1}, {3, 6}, {10, 15}}));
  EXPECT_EQ(ranges_of(trace, SequencePart::kOdd), (Ranges{{1, 3}, {6, 10}}));
  EXPECT_EQ(ranges_of(trace, SequencePart::kFirstHalf), (Ranges{{0, 6}}));
  EXPECT_EQ(ranges_of(trace, SequencePart::kSecondHalf), (Ranges{{6, 15}}));
}

TEST(RangesOf, AndTheOtherPartAreTheWholeTrace) {
  const Trace trace = five_sequences();
  for (const char* const name : {"even", "odd", "first-half", "second-half"}) {
    const SequencePart part = parse_sequence_part(name);
    EXPECT_EQ(name_of(part), name);
    EXPECT_EQ(other_part(other_part(part)), part);
    EXPECT_EQ(
        num_tokens_in(ranges_of(trace, part)) + num_tokens_in(ranges_of(trace, other_part(part))),
        15);
  }
}

TEST(RangesOutside, AreWhatIsLeft) {
  EXPECT_EQ(ranges_outside({}, 9), (Ranges{{0, 9}}));
  EXPECT_EQ(ranges_outside({}, 0), (Ranges{}));
  EXPECT_EQ(ranges_outside(Ranges{{0, 9}}, 9), (Ranges{}));
  EXPECT_EQ(ranges_outside(Ranges{{2, 3}, {3, 5}}, 9), (Ranges{{0, 2}, {5, 9}}));
  EXPECT_EQ(ranges_outside(Ranges{{7, 9}, {4, 4}, {0, 2}}, 9), (Ranges{{2, 4}, {4, 7}}));
}

// By the definition, on five sequences, where every two parts that can meet do.
TEST(Overlap, SaysWhetherPartsShareSequences) {
  const Trace trace = five_sequences();
  constexpr SequencePart kParts[] = {SequencePart::kAll, SequencePart::kEven, SequencePart::kOdd,
                                     SequencePart::kFirstHalf, SequencePart::kSecondHalf};
  for (const SequencePart a : kParts) {
    for (const SequencePart b : kParts) {
      bool is_shared = false;
      for (const TokenRange& one : ranges_of(trace, a)) {
        for (const TokenRange& two : ranges_of(trace, b)) {
          is_shared = is_shared || std::max(one.begin, two.begin) < std::min(one.end, two.end);
        }
      }
      EXPECT_EQ(overlap(a, b), is_shared) << name_of(a) << " and " << name_of(b);
    }
  }
}

TEST(AlternateSequences, DealsOutAPartInTurn) {
  const Trace trace = five_sequences();
  const auto all = alternate_sequences(trace, ranges_of(trace, SequencePart::kAll));
  EXPECT_EQ(all[0], ranges_of(trace, SequencePart::kEven));
  EXPECT_EQ(all[1], ranges_of(trace, SequencePart::kOdd));
  const auto even = alternate_sequences(trace, ranges_of(trace, SequencePart::kEven));
  EXPECT_EQ(even[0], (Ranges{{0, 1}, {10, 15}}));
  EXPECT_EQ(even[1], (Ranges{{3, 6}}));
}

TEST(ParseSequencePart, ListsTheParts) {
  EXPECT_EQ(testing::error_of([] { parse_sequence_part("half"); }),
            "a part of a trace is all, even, odd, first-half or second-half; not 'half'");
}

}  // namespace
}  // namespace c2r
