// Learns what token ids say of the ranks that tokens visit, and scores sequences by it.
#include "c2r/plan/homes/token_homes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/cost/replica_rule.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

// Weights are multiples of its inverse, so that a file has few digits of each.
constexpr double kWeightSteps = 1e5;

// The fitted tokens by their ids.
struct IdSums {
  std::vector<TokenId> ids;        // ascending
  std::vector<double> num_tokens;  // [num_ids]
  Matrix<double> visits;           // [num_ids, ep_size], sums of shares of layers
  double squares = 0;              // of the shares of all tokens and ranks
};

// Of each token of a piece the share of layers in which it visits each rank. [num_tokens, ep_size]
Matrix<double> shares_of_layers(const Trace& trace, const TokenRange& piece,
                                std::span<ReplicaChooser> choosers, std::int64_t ep_size) {
  Matrix<double> shares(piece.end - piece.begin, ep_size);
  std::vector<RankId> served_by(std::size_t(trace.header().top_k));
  for (std::size_t layer = 0; layer < choosers.size(); ++layer) {
    const auto topk_idx = trace.topk_idx(std::int64_t(layer), piece.begin, piece.end);
    for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
      choosers[layer].choose(topk_idx.row(t), RankId{0}, piece.begin + t, served_by);
      const std::set<RankId> ranks(served_by.begin(), served_by.end());
      for (const RankId rank : ranks) {
        if (rank != kNoRank) at(shares.row(t), rank) += 1.0 / double(choosers.size());
      }
    }
  }
  return shares;
}

std::vector<TokenId> distinct_ids(const Trace& trace, std::span<const TokenRange> sequences) {
  std::vector<TokenId> ids;
  for (const auto& [begin, end] : sequences) {
    const auto of_sequence = trace.token_ids(begin, end);
    ids.insert(ids.end(), of_sequence.begin(), of_sequence.end());
  }
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

IdSums sums_of_ids(const Trace& trace, std::span<const TokenRange> sequences,
                   std::span<const Placement> placements, const Cluster& cluster) {
  IdSums sums{.ids = distinct_ids(trace, sequences)};
  sums.num_tokens.resize(sums.ids.size());
  sums.visits = {std::ssize(sums.ids), cluster.ep_size()};
  std::vector<ReplicaChooser> choosers;
  choosers.reserve(placements.size());
  for (const Placement& placement : placements) {
    choosers.emplace_back(
        placement, TrafficModel{.cluster = cluster, .replica_rule = ReplicaRule::kFewestRanks});
  }
  for (const TokenRange& piece : pieces_of(sequences)) {
    const auto ids = trace.token_ids(piece.begin, piece.end);
    const auto shares = shares_of_layers(trace, piece, choosers, cluster.ep_size());
    for (std::int64_t t = 0; t < shares.rows(); ++t) {
      const auto w = std::ranges::lower_bound(sums.ids, at(ids, t)) - sums.ids.begin();
      at(sums.num_tokens, w) += 1;
      for (std::int64_t r = 0; r < shares.cols(); ++r) {
        sums.visits(w, r) += shares(t, r);
        sums.squares += shares(t, r) * shares(t, r);
      }
    }
  }
  return sums;
}

// The mean share of each rank over all tokens. [ep_size]
std::vector<double> mean_shares(const IdSums& sums) {
  const double num_tokens = std::accumulate(sums.num_tokens.begin(), sums.num_tokens.end(), 0.0);
  std::vector<double> mean(std::size_t(sums.visits.cols()));
  for (std::int64_t w = 0; w < sums.visits.rows(); ++w) {
    for (std::int64_t r = 0; r < sums.visits.cols(); ++r) {
      at(mean, r) += sums.visits(w, r) / num_tokens;
    }
  }
  return mean;
}

// The tokens that an id needs to count half: within / between. Infinite if ids say nothing, or no
// id occurs twice.
double prior_tokens(const IdSums& sums, std::span<const double> mean) {
  double num_tokens = 0, num_squared = 0, of_ids = 0, of_all = 0;
  for (std::int64_t w = 0; w < sums.visits.rows(); ++w) {
    const double n = at(sums.num_tokens, w);
    num_tokens += n;
    num_squared += n * n;
    for (const double visits : sums.visits.row(w)) of_ids += visits * visits / n;
  }
  for (const double share : mean) of_all += num_tokens * share * share;
  const double num_ids = double(sums.ids.size());
  if (num_ids < 2 || num_tokens <= num_ids) return std::numeric_limits<double>::infinity();
  const double within = (sums.squares - of_ids) / (num_tokens - num_ids);
  const double tokens_of_id = (num_tokens - num_squared / num_tokens) / (num_ids - 1);
  const double between = ((of_ids - of_all) / (num_ids - 1) - within) / tokens_of_id;
  return between > 0 ? std::max(within, 0.0) / between : std::numeric_limits<double>::infinity();
}

// The ids with the largest gains, in ascending order.
std::vector<std::int64_t> most_useful(std::span<const double> gains, std::int64_t max_ids) {
  std::vector<std::int64_t> order;
  for (std::int64_t w = 0; w < std::ssize(gains); ++w) {
    if (at(gains, w) > 0) order.push_back(w);
  }
  std::ranges::stable_sort(order, std::greater{}, [&](std::int64_t w) { return at(gains, w); });
  if (std::ssize(order) > max_ids) order.resize(std::size_t(max_ids));
  std::ranges::sort(order);
  return order;
}

// The weights of the ids that are kept, without prices.
TokenWeights estimates_of(const IdSums& sums, std::int64_t ep_size) {
  const auto mean = mean_shares(sums);
  const double prior = prior_tokens(sums, mean);
  Matrix<double> estimates(std::ssize(sums.ids), ep_size);
  std::vector<double> gains;  // what the fitted squares lose by them
  for (std::int64_t w = 0; w < estimates.rows(); ++w) {
    const double n = at(sums.num_tokens, w);
    double squares = 0;
    for (std::int64_t r = 0; r < ep_size; ++r) {
      estimates(w, r) = (sums.visits(w, r) - n * at(mean, r)) / (n + prior);
      squares += estimates(w, r) * estimates(w, r);
    }
    gains.push_back(n < double(kLeastTokensOfId) ? 0 : n * squares);
  }
  const auto kept = most_useful(gains, kMaxTokenWeights / ep_size);
  TokenWeights weights{.weights = {std::ssize(kept), ep_size},
                       .of_others = std::vector<double>(std::size_t(ep_size))};
  for (std::int64_t k = 0; k < std::ssize(kept); ++k) {
    weights.ids.push_back(at(sums.ids, at(kept, k)));
    std::ranges::copy(estimates.row(at(kept, k)), weights.weights.row(k).begin());
  }
  return weights;
}

Matrix<double> scores_by_ids(const TokenWeights& weights, const Trace& trace,
                             std::span<const TokenRange> sequences, std::int64_t num_tokens) {
  Matrix<double> scores(std::ssize(sequences), std::ssize(weights.of_others));
  for (std::int64_t s = 0; s < scores.rows(); ++s) {
    const auto [begin, end] = at(sequences, s);
    const auto ids = trace.token_ids(begin, begin + std::min(num_tokens, end - begin));
    std::ranges::copy(token_scores(weights, ids), scores.row(s).begin());
  }
  return scores;
}

}  // namespace

void check_has_token_ids(const RoutedTokens& tokens) {
  C2R_REQUIRE(tokens.trace != nullptr && tokens.trace->has_token_ids(), kInvalidArgument,
              "homes by token ids need a trace with them, but {} has none; `c2r profile "
              "--token-ids` records them",
              tokens.name);
}

TokenWeights fit_token_weights(const RoutedTokens& tokens, std::span<const Placement> placements,
                               const Cluster& cluster, Progress& progress) {
  check_has_token_ids(tokens);
  const Trace& trace = *tokens.trace;
  C2R_REQUIRE(std::ssize(placements) == trace.header().num_layers(), kInvalidArgument,
              "there are {} placements for {} layers", placements.size(),
              trace.header().num_layers());
  progress.begin("fitting homes by token ids");
  const auto sequences = sequences_in(trace, tokens.ranges);
  const IdSums sums = sums_of_ids(trace, sequences, placements, cluster);
  TokenWeights weights = estimates_of(sums, cluster.ep_size());
  const auto prices = even_prices(
      scores_by_ids(weights, trace, sequences, std::numeric_limits<std::int64_t>::max()),
      lengths_of(sequences), kHomeImbalance);
  const auto less_price = [&](std::span<double> row) {
    for (std::size_t r = 0; r < row.size(); ++r) {
      row[r] = std::round((row[r] - prices[r]) * kWeightSteps) / kWeightSteps;
    }
  };
  for (std::int64_t k = 0; k < weights.weights.rows(); ++k) less_price(weights.weights.row(k));
  less_price(weights.of_others);
  progress.update(1, 1);
  return weights;
}

std::vector<double> token_scores(const TokenWeights& weights, std::span<const TokenId> ids) {
  std::vector<double> scores(weights.of_others.size());
  for (const TokenId id : ids) {
    const auto found = std::ranges::lower_bound(weights.ids, id);
    const bool is_known = found != weights.ids.end() && *found == id;
    const std::span<const double> row = is_known ? weights.weights.row(found - weights.ids.begin())
                                                 : std::span<const double>(weights.of_others);
    for (std::size_t r = 0; r < scores.size(); ++r) scores[r] += row[r] / double(ids.size());
  }
  return scores;
}

AssignedHomes assign_homes_by_ids(const TokenWeights& weights, const RoutedTokens& tokens,
                                  std::int64_t num_tokens, std::int64_t window) {
  check_has_token_ids(tokens);
  const Trace& trace = *tokens.trace;
  return assign_homes(scores_by_ids(weights, trace, sequences_in(trace, tokens.ranges), num_tokens),
                      tokens, 0, window);
}

AssignedHomes followed_homes(const HomeSignature& signature, const RoutedTokens& tokens,
                             std::int64_t window) {
  if (!signature.token_weights) {
    return assign_homes(signature, tokens, PrefixRuns::kInTurn, window);
  }
  return assign_homes_by_ids(*signature.token_weights, tokens,
                             std::numeric_limits<std::int64_t>::max(), window);
}

}  // namespace c2r
