// Tokens with their choices of experts, on which plans are fitted and which predictions count.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/progress.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/token_sets.h"
#include "c2r/trace/join_traces.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// The distinct choices of tokens in each layer of a model, without the order of the tokens.
struct ModelTokenSets {
  TraceHeader header;
  std::vector<TokenSets> layers;  // [num_layers]
  std::string name = "token sets";
};

/// Tokens in one of three forms: a part of a trace, token sets, or pair counts of all tokens. The
/// form is borrowed.
struct RoutedTokens {
  const Trace* trace = nullptr;
  std::vector<TokenRange> ranges;                       // of the trace
  const CollaborationStatistics* statistics = nullptr;  // instead of the trace
  std::string name;                                     // for messages and tables
  const ModelTokenSets* sets = nullptr;                 // instead of the trace
  // Groups of the tokens of a trace, which together are `ranges`; empty: none.
  std::vector<std::vector<TokenRange>> scenarios = {};

  /// Whether only the loads of experts are known: then nothing says how many copies are sent.
  bool has_loads_only() const { return statistics != nullptr && !statistics->has_pairs; }
  const TraceHeader& header() const {
    if (trace != nullptr) return trace->header();
    return sets != nullptr ? sets->header : statistics->header;
  }
};

/// @returns the ranges of a part of the trace
/// @throws Error(kInvalidArgument) if the part has no tokens
std::vector<TokenRange> tokens_of(const Trace& trace, SequencePart part);

/// @param traces that were joined
/// @returns the ranges of the part of each trace in the joined one
/// @throws Error(kInvalidArgument) if no trace has tokens there
std::vector<TokenRange> tokens_of(const JoinedTraces& joined, std::span<const Trace> traces,
                                  SequencePart part);

/// @returns the tokens of a part of the trace, named "PATH, PART"
/// @throws Error(kInvalidArgument) if the part has no tokens
RoutedTokens routed_tokens_of(const Trace& trace, SequencePart part);

/// @param name of the statistics: their file
/// @returns all tokens of the statistics, named "NAME, pair counts" or "NAME, loads"
/// @throws Error(kInvalidArgument) if the statistics have no tokens
RoutedTokens routed_tokens_of(const CollaborationStatistics& statistics, std::string_view name);

/// @returns the sets of tokens that pair counts of top-2 determine, or, of a larger top-k, a set of
///          two experts for each pair: an estimate of which experts to place together, in which a
///          token stands for as many sets as it has pairs. The header is the statistics', with the
///          sets' top_k
/// @throws Error(kInvalidArgument) if the statistics hold loads only or have no pairs, or if counts
///         of top-2 contradict each other
ModelTokenSets token_sets_of_pairs(const CollaborationStatistics& statistics,
                                   std::string_view name);

/// @returns token sets as tokens to fit or to predict for
/// @throws Error(kInvalidArgument) if a layer has other experts or top_k than the header or is not
///         valid (check_token_sets()), if the layers are not as many as the header's, or if they
///         have no tokens
RoutedTokens tokens_of(const ModelTokenSets& sets);

/// @returns the token sets of one layer, by scenario if there are any
/// @throws Error(kInvalidArgument) if the tokens are pair counts, which do not determine them
///
/// Cost: collect_token_sets() of a trace; a copy of token sets.
TokenSets token_sets_of(const RoutedTokens& tokens, std::int64_t layer);

/// @returns how often experts were chosen together. [num_layers]
///
/// Cost: count_pairs() of a trace; top_k^2 increments for each distinct set of token sets.
std::vector<CollaborationMatrix> pair_counts_of(const RoutedTokens& tokens, int num_threads);

/// Counts the ranks that the tokens reach under `placements` [num_layers]. The tokens of token sets
/// come in the order of the sets, which matters only to replica rules that look at earlier tokens.
/// @returns [num_layers]
/// @throws Error(kInvalidArgument) as count_reach() and reach_from_pairs(), or if the homes of
///         token sets are to be those of sequences, which sets do not have
///
/// Cost: count_reach() of a trace; as much for each token of token sets; reach_from_pairs() of
/// counts.
std::vector<Reach> reach_of(const RoutedTokens& tokens, std::span<const Placement> placements,
                            const TrafficModel& traffic, int num_threads, Progress& progress);

/// Counts one layer of a trace or of token sets as above.
/// @throws Error(kInvalidArgument) as above, or if the tokens are pair counts or have other homes
///         than uniform ones
Reach reach_of_layer(const RoutedTokens& tokens, std::int64_t layer, const Placement& placement,
                     const TrafficModel& traffic, const Progress& progress);

}  // namespace c2r
