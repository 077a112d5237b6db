// Scores sequences by a signature and spreads them evenly over ranks.
#include "c2r/plan/homes/assign_homes.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/plan/homes/fit_homes.h"

namespace c2r {
namespace {

constexpr int kPriceRounds = 400;
constexpr double kPriceStep = 0.02;  // of the spread of scores, for twice the mean tokens

std::vector<std::int64_t> tokens_of_ranks(std::span<const RankId> homes,
                                          std::span<const std::int64_t> num_tokens,
                                          std::int64_t ep_size) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(ep_size));
  for (std::size_t s = 0; s < homes.size(); ++s) at(tokens, homes[s]) += num_tokens[s];
  return tokens;
}

// Takes tokens from ranks that have more than `most`, at the least cost in score for each of them.
class Evener {
 public:
  Evener(const Matrix<double>& scores, std::span<const std::int64_t> num_tokens, double most,
         std::vector<RankId> homes)
      : scores_(scores),
        num_tokens_(num_tokens),
        most_(most),
        homes_(std::move(homes)),
        tokens_(tokens_of_ranks(homes_, num_tokens, scores.cols())) {}

  // Each change lowers the excess, which is a multiple of 1 token but for one constant: it ends.
  std::vector<RankId> run() {
    while (const auto change = best_change()) apply(*change);
    return homes_;
  }

 private:
  // Sequence `moved` goes to `rank`, and `back` from there to its rank.
  struct Change {
    std::size_t moved = 0;
    std::size_t rank = 0;
    std::optional<std::size_t> back;
    double cost = 0;  // in score for each token of excess
  };

  double excess(std::int64_t tokens) const { return std::max(0.0, double(tokens) - most_); }
  double gain(std::size_t s, std::size_t rank) const {
    return double(num_tokens_[s]) *
           (scores_(std::int64_t(s), std::int64_t(rank)) -
            scores_(std::int64_t(s), static_cast<std::int64_t>(homes_[s])));
  }

  void consider(const Change& change, std::int64_t shift, double lost,
                std::optional<Change>& best) const {
    const std::size_t from = index(homes_[change.moved]);
    const double less = excess(tokens_[from]) + excess(tokens_[change.rank]) -
                        excess(tokens_[from] - shift) - excess(tokens_[change.rank] + shift);
    if (less <= 1e-9) return;
    if (best && lost / less >= best->cost) return;
    best = change;
    best->cost = lost / less;
  }

  std::optional<Change> best_change() const {
    std::optional<Change> best;
    for (std::size_t s = 0; s < homes_.size(); ++s) {
      if (excess(at(tokens_, homes_[s])) == 0) continue;
      for (std::size_t rank = 0; rank < tokens_.size(); ++rank) {
        if (rank == index(homes_[s])) continue;
        consider({.moved = s, .rank = rank}, num_tokens_[s], -gain(s, rank), best);
      }
      for (std::size_t other = 0; other < homes_.size(); ++other) {
        const std::size_t rank = index(homes_[other]);
        const std::int64_t shift = num_tokens_[s] - num_tokens_[other];
        if (rank == index(homes_[s]) || shift <= 0) continue;
        consider({.moved = s, .rank = rank, .back = other}, shift,
                 -gain(s, rank) - gain(other, index(homes_[s])), best);
      }
    }
    return best;
  }

  void apply(const Change& change) {
    const std::size_t from = index(homes_[change.moved]);
    const auto move = [&](std::size_t s, std::size_t rank) {
      at(tokens_, homes_[s]) -= num_tokens_[s];
      tokens_[rank] += num_tokens_[s];
      homes_[s] = RankId{static_cast<std::int32_t>(rank)};
    };
    move(change.moved, change.rank);
    if (change.back) move(*change.back, from);
  }

  const Matrix<double>& scores_;
  std::span<const std::int64_t> num_tokens_;
  double most_;
  std::vector<RankId> homes_;
  std::vector<std::int64_t> tokens_;  // [ep_size]
};

std::int64_t layer_of(const HomeSignature& signature, const Trace& trace) {
  const auto& indices = trace.header().layer_indices;
  const auto found = std::ranges::find(indices, signature.layer_index);
  C2R_REQUIRE(found != indices.end() && signature.weights.cols() == trace.header().num_experts,
              kInvalidArgument,
              "the signature is of layer {} with {} experts, which {} does not have",
              signature.layer_index, signature.weights.cols(), trace.path());
  return found - indices.begin();
}

// Adds to the share of each expert [num_experts] what the tokens chose.
void add_shares(MatrixView<const ExpertId> topk_idx, std::span<double> shares) {
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    for (const ExpertId e : topk_idx.row(t)) {
      if (e == kNoExpert) continue;
      C2R_REQUIRE(index(e) < shares.size(), kInvalidArgument,
                  "token {} of a sequence chose expert {}, but the signature is of {} experts", t,
                  static_cast<std::int32_t>(e), shares.size());
      at(shares, e) += 1.0 / double(topk_idx.rows());
    }
  }
}

}  // namespace

Matrix<double> prefix_shares(const Trace& trace, std::int64_t layer,
                             std::span<const TokenRange> sequences, std::int64_t num_tokens) {
  Matrix<double> shares(std::ssize(sequences), trace.header().num_experts);
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto [begin, end] = sequences[s];
    const std::int64_t last = std::min(end, begin + std::min(num_tokens, end - begin));
    add_shares(trace.topk_idx(layer, begin, last), shares.row(std::int64_t(s)));
  }
  return shares;
}

std::vector<double> sequence_scores(const HomeSignature& signature,
                                    MatrixView<const ExpertId> topk_idx) {
  const std::int64_t num_tokens = std::min(signature.num_tokens, topk_idx.rows());
  std::vector<double> shares(std::size_t(signature.weights.cols()));
  add_shares(topk_idx.rows(0, num_tokens), shares);
  std::vector<double> scores;
  for (std::int64_t r = 0; r < signature.weights.rows(); ++r) {
    scores.push_back(
        std::inner_product(shares.begin(), shares.end(), signature.weights.row(r).begin(), 0.0));
  }
  return scores;
}

Matrix<double> home_scores(const HomeSignature& signature, const Trace& trace,
                           std::span<const TokenRange> sequences) {
  const std::int64_t layer = layer_of(signature, trace);
  Matrix<double> scores(std::ssize(sequences), signature.weights.rows());
  for (std::int64_t s = 0; s < scores.rows(); ++s) {
    const auto [begin, end] = at(sequences, s);
    const std::int64_t last = begin + std::min(signature.num_tokens, end - begin);
    std::ranges::copy(sequence_scores(signature, trace.topk_idx(layer, begin, last)),
                      scores.row(s).begin());
  }
  return scores;
}

std::vector<RankId> priced_homes(const Matrix<double>& scores, std::span<const double> prices) {
  std::vector<RankId> homes;
  for (std::int64_t s = 0; s < scores.rows(); ++s) {
    std::int32_t best = 0;
    for (std::int32_t r = 1; r < scores.cols(); ++r) {
      if (scores(s, r) - at(prices, r) > scores(s, best) - at(prices, best)) best = r;
    }
    homes.push_back(RankId{best});
  }
  return homes;
}

std::vector<double> even_prices(const Matrix<double>& scores,
                                std::span<const std::int64_t> num_tokens, double max_imbalance) {
  std::vector<double> prices(static_cast<std::size_t>(scores.cols()));
  double spread = 0;  // the mean difference of a sequence's highest and lowest score
  for (std::int64_t s = 0; s < scores.rows(); ++s) {
    const auto [least, most] = std::ranges::minmax(scores.row(s));
    spread += (most - least) / double(scores.rows());
  }
  auto best = prices;
  double least = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kPriceRounds && spread > 0; ++round) {
    const auto tokens = tokens_of_ranks(priced_homes(scores, prices), num_tokens, scores.cols());
    const double met = imbalance(tokens);
    if (met < least) least = met, best = prices;
    if (met <= max_imbalance) break;
    const double mean = double(std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0})) /
                        double(tokens.size());
    for (std::size_t r = 0; r < prices.size(); ++r) {
      prices[r] += kPriceStep * spread * (double(tokens[r]) / mean - 1);
    }
  }
  return best;
}

std::vector<RankId> balanced_homes(const Matrix<double>& scores,
                                   std::span<const std::int64_t> num_tokens, double max_imbalance) {
  C2R_REQUIRE(std::ssize(num_tokens) == scores.rows(), kInvalidArgument,
              "there are scores of {} sequences, but lengths of {}", scores.rows(),
              num_tokens.size());
  const auto prices = even_prices(scores, num_tokens, max_imbalance);
  const auto all = std::accumulate(num_tokens.begin(), num_tokens.end(), std::int64_t{0});
  const double most = max_imbalance * double(all) / double(scores.cols());
  return Evener(scores, num_tokens, most, priced_homes(scores, prices)).run();
}

AssignedHomes assign_homes(const Matrix<double>& scores, const RoutedTokens& tokens,
                           std::int64_t num_prefix_tokens, std::int64_t window) {
  C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
              "homes of sequences need a trace with sequences, but {} has none", tokens.name);
  C2R_REQUIRE(window >= 0, kInvalidArgument, "a window has {} sequences, but must have at least 0",
              window);
  const std::int64_t ep_size = scores.cols();
  AssignedHomes homes{.num_prefix_tokens = num_prefix_tokens,
                      .window = window == 0 ? kSequencesPerRank * ep_size : window,
                      .sequences = sequences_in(*tokens.trace, tokens.ranges)};
  const auto num_sequences = std::ssize(homes.sequences);
  C2R_REQUIRE(scores.rows() == num_sequences, kInvalidArgument,
              "there are scores of {} sequences, but {} in {}", scores.rows(), num_sequences,
              tokens.name);
  const auto lengths = lengths_of(homes.sequences);
  std::vector<std::int64_t> of_window, of_rank(static_cast<std::size_t>(ep_size));
  for (std::int64_t begin = 0; begin < num_sequences; begin += homes.window) {
    const std::int64_t end = std::min(num_sequences, begin + homes.window);
    Matrix<double> of_sequences(end - begin, ep_size);
    std::vector<std::int64_t> rests;
    for (std::int64_t s = begin; s < end; ++s) {
      std::ranges::copy(scores.row(s), of_sequences.row(s - begin).begin());
      rests.push_back(std::max<std::int64_t>(0, at(lengths, s) - num_prefix_tokens));
    }
    const auto found = balanced_homes(of_sequences, rests, kHomeImbalance);
    of_window = tokens_of_ranks(found, rests, ep_size);
    for (std::int64_t s = begin; s < end; ++s) {
      const RankId chosen = at(found, s - begin);
      homes.chosen.push_back(chosen);
      homes.first.push_back(
          num_prefix_tokens == 0 ? chosen : RankId{static_cast<std::int32_t>(s % ep_size)});
      at(of_window, homes.first.back()) += at(lengths, s) - at(rests, s - begin);
    }
    homes.window_imbalance = std::max(homes.window_imbalance, imbalance(of_window));
    for (std::size_t r = 0; r < of_rank.size(); ++r) of_rank[r] += of_window[r];
  }
  homes.imbalance = imbalance(of_rank);
  return homes;
}

AssignedHomes assign_homes(const HomeSignature& signature, const RoutedTokens& tokens,
                           PrefixRuns prefix, std::int64_t window) {
  C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
              "homes by signature need a trace with sequences, but {} has none", tokens.name);
  const auto sequences = sequences_in(*tokens.trace, tokens.ranges);
  return assign_homes(home_scores(signature, *tokens.trace, sequences), tokens,
                      prefix == PrefixRuns::kInTurn ? signature.num_tokens : 0, window);
}

namespace {

// The tokens in the order in which a runtime serves them, and the home of each.
struct HomeRuns {
  std::vector<TokenRange> tokens;
  std::vector<RankId> home_of_token;  // [num_tokens of the trace]
};

HomeRuns runs_of(const AssignedHomes& homes, std::int64_t num_tokens) {
  HomeRuns runs{.home_of_token = std::vector<RankId>(std::size_t(num_tokens))};
  const auto num_sequences = std::ssize(homes.sequences);
  const auto split_of = [&](std::int64_t s) {
    const auto [begin, end] = at(homes.sequences, s);
    return std::min(end, begin + homes.num_prefix_tokens);
  };
  const auto append = [&](const TokenRange& tokens, RankId home) {
    runs.tokens.push_back(tokens);
    std::fill(runs.home_of_token.begin() + tokens.begin, runs.home_of_token.begin() + tokens.end,
              home);
  };
  for (std::int64_t begin = 0; begin < num_sequences; begin += homes.window) {
    const std::int64_t end = std::min(num_sequences, begin + homes.window);
    for (std::int64_t s = begin; s < end; ++s) {
      append({at(homes.sequences, s).begin, split_of(s)}, at(homes.first, s));
    }
    for (std::int64_t s = begin; s < end; ++s) {
      append({split_of(s), at(homes.sequences, s).end}, at(homes.chosen, s));
    }
  }
  return runs;
}

}  // namespace

std::vector<Reach> count_reach_of_homes(const RoutedTokens& tokens, const AssignedHomes& homes,
                                        std::span<const Placement> placements,
                                        const TrafficModel& traffic, int num_threads,
                                        Progress& progress) {
  C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
              "homes of sequences need a trace with sequences, but {} has none", tokens.name);
  const HomeRuns runs = runs_of(homes, tokens.trace->num_tokens());
  return count_reach(*tokens.trace, runs.tokens, runs.home_of_token, placements, traffic,
                     num_threads, progress);
}

WaterfallStep predict_homes(std::string name, const RoutedTokens& tokens,
                            const AssignedHomes& homes, std::span<const Placement> placements,
                            const PredictRequest& request, int num_threads, Progress& progress) {
  PredictRequest with_homes = request;
  with_homes.traffic.homes = Homes::kSequences;
  WaterfallStep step = predict_reach(
      std::move(name), tokens,
      count_reach_of_homes(tokens, homes, placements, with_homes.traffic, num_threads, progress),
      with_homes);
  step.prediction.homes = Homes::kSignature;
  return step;
}

}  // namespace c2r
