// Reads what other commands print as JSON, for a report. Each file may come from anybody.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "c2r/io/json.h"

namespace c2r {

/// Reads what `c2r compare --json` printed.
/// @returns it, with the keys that the report reads checked
/// @throws Error(kInvalidFile) if it is something else
Json read_comparison(const std::filesystem::path& path);

/// The same of JSON that is read already.
/// @param place where it comes from, for messages
Json checked_comparison(Json comparison, std::string_view place);

/// Reads what `c2r score --json` printed: an object on each line.
/// @returns {"name", "num_tokens", "log_likelihood", "perplexity"}, of all lines together
/// @throws Error(kInvalidFile), naming the line, if it is something else or has no scored token
Json read_scores(const std::filesystem::path& path);

/// Reads what `c2r simulate --constrained TRACE --json` printed.
/// @returns {"name", "wire_copies_per_token", "imbalance"} of the step "constraint": means over
///          layers
/// @throws Error(kInvalidFile) if it is something else
Json read_constrained(const std::filesystem::path& path);

/// The same of JSON that is read already.
/// @param place where it comes from, for messages; also the "name"
Json constrained_traffic(const Json& simulated, std::string_view place);

/// Reads what `c2r bench layer --json` or `c2r bench exchange --json` printed.
/// @returns {"name", "problem", "what", "ep_size", "tokens_per_rank", "hidden", "variants":
///          [{"name", "median_s", "dispatch_s", "experts_s", "combine_s"}]}; the last three are
///          sums of phases, means over ranks
/// @throws Error(kInvalidFile) if it is something else
Json read_layer_bench(const std::filesystem::path& path);

/// What was measured of the model with one constraint, or without any.
struct ConstraintInput {
  std::optional<std::int64_t> top_t;  // nothing: without a constraint
  Json value;                         // of read_scores() or read_constrained()
};

/// @returns [{"top_t": T or null, "score": {...}, "traffic": {...}}], without the constraint first
///          and then by T; what was not given is missing
/// @throws Error(kInvalidArgument) if a T has two scores or two traffics, or if scores are of
///         different numbers of tokens, so that they cannot be compared
Json constraint_rows(std::span<const ConstraintInput> scores,
                     std::span<const ConstraintInput> traffic);

}  // namespace c2r
