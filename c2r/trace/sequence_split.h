// Splits of a trace into parts, so that a plan is fitted on one part and reported on another.
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

/// A part of a trace: whole sequences, by their number. Even and odd sequences have the same
/// distribution. The halves of a trace that is sorted by subject have not, so they show how well a
/// plan does after the traffic has changed.
enum class SequencePart { kAll, kEven, kOdd, kFirstHalf, kSecondHalf };

inline constexpr std::array kSequenceParts = {SequencePart::kAll, SequencePart::kEven,
                                              SequencePart::kOdd, SequencePart::kFirstHalf,
                                              SequencePart::kSecondHalf};

/// @returns "all", "even", "odd", "first-half" or "second-half"
std::string_view name_of(SequencePart part);

/// @returns the part of that name
/// @throws Error(kInvalidArgument), listing the names
SequencePart parse_sequence_part(std::string_view name);

/// @returns the part to report on after fitting on `part`: the other sequences, for kAll all of
/// them
SequencePart other_part(SequencePart part);

/// @returns whether a sequence can be in both parts
bool overlap(SequencePart a, SequencePart b);

/// @returns the tokens of the part in ascending order, where adjacent sequences are one range. The
///          middle one of an odd number of sequences is in the first half.
std::vector<TokenRange> ranges_of(const Trace& trace, SequencePart part);

/// Assigns the sequences of `ranges` alternately to two halves, for fitting on one half of a part
/// and measuring on the other.
/// @param ranges as ranges_of() returns them
std::array<std::vector<TokenRange>, 2> alternate_sequences(const Trace& trace,
                                                           std::span<const TokenRange> ranges);

/// @param ranges disjoint, in any order
/// @returns the tokens of a trace that are in none of the ranges, ascending and none of them empty
std::vector<TokenRange> ranges_outside(std::span<const TokenRange> ranges, std::int64_t num_tokens);

/// @returns the tokens of all ranges together
std::int64_t num_tokens_in(std::span<const TokenRange> ranges);

}  // namespace c2r
