// The parts of a trace as ranges of tokens.
#include "c2r/trace/sequence_split.h"

#include <algorithm>

#include "c2r/core/enum_names.h"

namespace c2r {
namespace {

constexpr EnumName<SequencePart> kParts[] = {{SequencePart::kAll, "all"},
                                             {SequencePart::kEven, "even"},
                                             {SequencePart::kOdd, "odd"},
                                             {SequencePart::kFirstHalf, "first-half"},
                                             {SequencePart::kSecondHalf, "second-half"}};

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
  return name_in(kParts, part);
}

SequencePart parse_sequence_part(std::string_view name) {
  return parse_in(kParts, "a part of a trace is", name);
}

SequencePart other_part(SequencePart part) {
  switch (part) {
    case SequencePart::kAll:
      return SequencePart::kAll;
    case SequencePart::kEven:
      return SequencePart::kOdd;
    case SequencePart::kOdd:
      return SequencePart::kEven;
    case SequencePart::kFirstHalf:
      return SequencePart::kSecondHalf;
    case SequencePart::kSecondHalf:
      return SequencePart::kFirstHalf;
  }
  return SequencePart::kAll;
}

bool overlap(SequencePart a, SequencePart b) {
  return a == SequencePart::kAll || other_part(a) != b;
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

std::array<std::vector<TokenRange>, 2> alternate_sequences(const Trace& trace,
                                                           std::span<const TokenRange> ranges) {
  const auto starts = trace.sequence_starts();
  std::array<std::vector<TokenRange>, 2> halves;
  std::size_t half = 0;
  for (const TokenRange& range : ranges) {
    for (std::int64_t begin = range.begin; begin < range.end; half = 1 - half) {
      const auto next = std::ranges::upper_bound(starts, begin);
      const std::int64_t end = next == starts.end() ? range.end : std::min(*next, range.end);
      halves[half].push_back({begin, end});
      begin = end;
    }
  }
  return halves;
}

std::vector<TokenRange> ranges_outside(std::span<const TokenRange> ranges,
                                       std::int64_t num_tokens) {
  std::vector<TokenRange> sorted(ranges.begin(), ranges.end());
  std::ranges::sort(sorted, {}, &TokenRange::begin);
  sorted.push_back({num_tokens, num_tokens});
  std::vector<TokenRange> outside;
  std::int64_t begin = 0;
  for (const TokenRange& range : sorted) {
    if (begin < range.begin) outside.push_back({begin, range.begin});
    begin = std::max(begin, range.end);
  }
  return outside;
}

std::int64_t num_tokens_in(std::span<const TokenRange> ranges) {
  std::int64_t num_tokens = 0;
  for (const TokenRange& range : ranges) num_tokens += range.end - range.begin;
  return num_tokens;
}

}  // namespace c2r
