// Parts of a trace: to fit on one and report on another.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "c2r/trace/trace.h"

namespace c2r {

/// Tokens [begin, end) of a trace.
struct TokenRange {
  std::int64_t begin = 0, end = 0;

  bool operator==(const TokenRange&) const = default;
};

/// Whole sequences, by their number. Even and odd ones have the same distribution; the halves may
/// not, where a trace is sorted by subject, and so show how a fit survives a change of traffic.
enum class SequencePart { kAll, kEven, kOdd, kFirstHalf, kSecondHalf };

/// "all", "even", "odd", "first-half", "second-half".
std::string_view name_of(SequencePart part);
/// @throws Error(kInvalidArgument), listing the names
SequencePart parse_sequence_part(std::string_view name);

/// What is left for reporting after fitting on `part`: the other sequences; of kAll, all of them.
SequencePart other_part(SequencePart part);

/// Whether a sequence can be in both parts.
bool overlap(SequencePart a, SequencePart b);

/// The tokens of the part, in order, neighbours joined. The first half has the middle sequence.
std::vector<TokenRange> ranges_of(const Trace& trace, SequencePart part);

/// Deals the sequences of `ranges` (of ranges_of()) out in turn, for fitting on one half of a part
/// and measuring on the other.
std::array<std::vector<TokenRange>, 2> alternate_sequences(const Trace& trace,
                                                           std::span<const TokenRange> ranges);

std::int64_t num_tokens_in(std::span<const TokenRange> ranges);

}  // namespace c2r
