// Assigns sequences to home ranks by a plan's signature, evenly, and counts what that saves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/routed_tokens.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// Where the tokens run by whose experts the home of a sequence is chosen.
enum class PrefixRuns {
  kInTurn,  // on the ranks in turn, as without a signature; the rest of the sequence at its home
  kAtHome,  // at the home: the experts are known before, as from an earlier turn of a conversation
};

/// @param sequences each as tokens [begin, end)
/// @param num_tokens of a sequence, from its beginning
/// @returns how often its first tokens chose each expert, divided by these tokens.
///          [num_sequences, num_experts]
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
Matrix<double> prefix_shares(const Trace& trace, std::int64_t layer,
                             std::span<const TokenRange> sequences, std::int64_t num_tokens);

/// @param topk_idx the choices of one sequence in the signature's layer, from its first token on;
///        those of its first `signature.num_tokens` tokens count. [num_tokens, top_k]
/// @returns the score of the sequence for each rank: home_of() takes the largest; all 0 without
///          tokens. [ep_size]
/// @throws Error(kInvalidArgument) if a choice is neither an expert of the signature nor kNoExpert
std::vector<double> sequence_scores(const HomeSignature& signature,
                                    MatrixView<const ExpertId> topk_idx);

/// @returns sequence_scores() of each sequence. [num_sequences, ep_size]
/// @throws Error(kInvalidArgument) if the trace has no such layer
Matrix<double> home_scores(const HomeSignature& signature, const Trace& trace,
                           std::span<const TokenRange> sequences);

/// @param scores [num_sequences, ep_size], of a token
/// @param num_tokens of each sequence. [num_sequences]
/// @returns prices of the ranks, with which no rank gets more than max_imbalance times the mean
///          tokens if each sequence takes the rank with the largest score less its price, or nearly
///          so. [ep_size]
std::vector<double> even_prices(const Matrix<double>& scores,
                                std::span<const std::int64_t> num_tokens, double max_imbalance);

/// @returns of each sequence the rank with the largest score less its price, the lowest of equals
std::vector<RankId> priced_homes(const Matrix<double>& scores, std::span<const double> prices);

/// Assigns sequences that are known together, as a batch is.
/// @param max_imbalance tokens of a rank over the mean; where whole sequences do not allow it, as
///        near as single moves and exchanges of sequences come
/// @returns homes whose scores times tokens add up to much: prices first, then moves and exchanges
///          that cost the least for the tokens that they take from ranks with too many.
///          [num_sequences]
std::vector<RankId> balanced_homes(const Matrix<double>& scores,
                                   std::span<const std::int64_t> num_tokens, double max_imbalance);

/// The tokens of ranks that a batch may have above the mean.
inline constexpr double kHomeImbalance = 1.02;
/// Sequences that each rank runs at the same time, on average, where nothing else is said.
inline constexpr std::int64_t kSequencesPerRank = 64;

/// The homes of a part of a trace.
struct AssignedHomes {
  std::int64_t num_prefix_tokens = 0;  // of a sequence, which run elsewhere; 0 for kAtHome
  std::int64_t window = 0;             // sequences that are assigned together
  std::vector<TokenRange> sequences;   // of the part
  std::vector<RankId> first;           // the homes of their first tokens. [num_sequences]
  std::vector<RankId> chosen;          // of the rest. [num_sequences]
  double imbalance = 1;                // tokens of a rank over the mean
  double window_imbalance = 1;         // the same, the worst of the windows
};

/// Assigns the sequences of `tokens` window by window, so that not only all of them together are
/// spread evenly but also those that run at the same time. Within each window the tokens that are
/// not of prefixes are spread within kHomeImbalance, as far as whole sequences allow it.
/// @param scores of the sequences that begin in the part. [num_sequences, ep_size]
/// @param num_prefix_tokens of each sequence, which run on the ranks in turn; 0: none
/// @param window sequences that are assigned together; 0: kSequencesPerRank for each rank
/// @throws Error(kInvalidArgument) if the tokens are no trace or there are scores of other
///         sequences
AssignedHomes assign_homes(const Matrix<double>& scores, const RoutedTokens& tokens,
                           std::int64_t num_prefix_tokens, std::int64_t window);

/// As above with the scores of a signature.
/// @throws also Error(kInvalidArgument) if the signature does not fit the trace
AssignedHomes assign_homes(const HomeSignature& signature, const RoutedTokens& tokens,
                           PrefixRuns prefix, std::int64_t window);

/// Counts the ranks that tokens reach from assigned homes, in the order in which a runtime serves
/// them: of each window first all prefixes, then the rest of all sequences. Rules for replicas that
/// look at earlier tokens are first given those outside the part, which live on rank 0.
/// @returns [num_layers]
/// @throws Error(kInvalidArgument) if the placements are not for the trace and the cluster
///
/// Cost: one ReplicaChooser::choose() for each token and layer.
std::vector<Reach> count_reach_of_homes(const RoutedTokens& tokens, const AssignedHomes& homes,
                                        std::span<const Placement> placements,
                                        const TrafficModel& traffic, int num_threads,
                                        Progress& progress);

/// Predicts with count_reach_of_homes().
/// @param name of the step
/// @returns a step whose prediction has the homes kSignature, whatever those of `request`, and
///          whole counts
WaterfallStep predict_homes(std::string name, const RoutedTokens& tokens,
                            const AssignedHomes& homes, std::span<const Placement> placements,
                            const PredictRequest& request, int num_threads, Progress& progress);

}  // namespace c2r
