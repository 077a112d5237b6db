#include "c2r/routing/sequence_split.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {
namespace {

struct PartRow {
  SequencePart part, other;
  std::string_view name;
};

constexpr PartRow kParts[] = {
    {SequencePart::kAll, SequencePart::kAll, "all"},
    {SequencePart::kEven, SequencePart::kOdd, "even"},
    {SequencePart::kOdd, SequencePart::kEven, "odd"},
    {SequencePart::kFirstHalf, SequencePart::kSecondHalf, "first-half"},
    {SequencePart::kSecondHalf, SequencePart::kFirstHalf, "second-half"},
};

const PartRow& row_of(SequencePart part) {
  return *std::ranges::find(kParts, part, &PartRow::part);
}

bool is_in(SequencePart part, std::size_t sequence, std::size_t num_sequences) {
  switch (part) {
    case SequencePart::kAll:
      return true;
    case SequencePart::kEven:
      return sequence % 2 == 0;
    case SequencePart::kOdd:
      return sequence % 2 == 1;
    case SequencePart::kFirstHalf:
      return 2 * sequence < num_sequences;
    case SequencePart::kSecondHalf:
      return 2 * sequence >= num_sequences;
  }
  return false;
}

}  // namespace

std::string_view name_of(SequencePart part) {
  return row_of(part).name;
}

SequencePart parse_sequence_part(std::string_view name) {
  const auto* const row = std::ranges::find(kParts, name, &PartRow::name);
  C2R_REQUIRE(row != std::end(kParts), kInvalidArgument,
              "'{}' is no part of a trace; there are all, even, odd, first-half and second-half",
              name);
  return row->part;
}

SequencePart other_part(SequencePart part) {
  return row_of(part).other;
}

std::vector<TokenRange> ranges_of(const Trace& trace, SequencePart part) {
  const auto starts = trace.sequence_starts();
  std::vector<TokenRange> ranges;
  for (std::size_t s = 0; s < starts.size(); ++s) {
    if (!is_in(part, s, starts.size())) continue;
    const std::int64_t end = s + 1 < starts.size() ? starts[s + 1] : trace.num_tokens();
    if (!ranges.empty() && ranges.back().end == starts[s]) {
      ranges.back().end = end;
    } else {
      ranges.push_back({starts[s], end});
    }
  }
  return ranges;
}

std::int64_t num_tokens_in(std::span<const TokenRange> ranges) {
  std::int64_t num_tokens = 0;
  for (const TokenRange& range : ranges) num_tokens += range.end - range.begin;
  return num_tokens;
}

}  // namespace c2r
