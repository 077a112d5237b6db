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

std::vector<RankId> highest(const Matrix<double>& scores, std::span<const double> prices) {
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

}  // namespace

Matrix<double> prefix_shares(const Trace& trace, std::int64_t layer,
                             std::span<const TokenRange> sequences, std::int64_t num_tokens) {
  Matrix<double> shares(std::ssize(sequences), trace.header().num_experts);
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto [begin, end] = sequences[s];
    const std::int64_t last = std::min(end, begin + std::min(num_tokens, end - begin));
    const auto topk_idx = trace.topk_idx(layer, begin, last);
    for (const ExpertId e : topk_idx.all()) {
      if (e != kNoExpert) at(shares.row(std::int64_t(s)), e) += 1.0 / double(last - begin);
    }
  }
  return shares;
}

Matrix<double> home_scores(const HomeSignature& signature, const Trace& trace,
                           std::span<const TokenRange> sequences) {
  const auto shares =
      prefix_shares(trace, layer_of(signature, trace), sequences, signature.num_tokens);
  Matrix<double> scores(shares.rows(), signature.weights.rows());
  for (std::int64_t s = 0; s < scores.rows(); ++s) {
    for (std::int64_t r = 0; r < scores.cols(); ++r) {
      scores(s, r) = std::inner_product(shares.row(s).begin(), shares.row(s).end(),
                                        signature.weights.row(r).begin(), 0.0);
    }
  }
  return scores;
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
    const auto tokens = tokens_of_ranks(highest(scores, prices), num_tokens, scores.cols());
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
  return Evener(scores, num_tokens, most, highest(scores, prices)).run();
}

AssignedHomes assign_homes(const HomeSignature& signature, const RoutedTokens& tokens,
                           std::int64_t window) {
  C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
              "homes by signature need a trace with sequences, but {} has none", tokens.name);
  C2R_REQUIRE(window >= 0, kInvalidArgument, "a window has {} sequences, but must have at least 0",
              window);
  const Trace& trace = *tokens.trace;
  const auto sequences = sequences_in(trace, tokens.ranges);
  const auto scores = home_scores(signature, trace, sequences);
  const std::vector<std::int64_t> lengths = lengths_of(sequences);
  const auto num_sequences = std::ssize(sequences);
  // Windows of nearly the same size, so that the last is no smaller than the others.
  const std::int64_t num_windows =
      window == 0 ? 1 : std::max<std::int64_t>(1, (num_sequences + window / 2) / window);
  AssignedHomes homes{.of_token = std::vector<RankId>(std::size_t(trace.num_tokens()), RankId{0})};
  for (std::int64_t w = 0; w < num_windows; ++w) {
    const std::int64_t begin = num_sequences * w / num_windows;
    const std::int64_t end = num_sequences * (w + 1) / num_windows;
    Matrix<double> of_window(end - begin, scores.cols());
    for (std::int64_t s = begin; s < end; ++s) {
      std::ranges::copy(scores.row(s), of_window.row(s - begin).begin());
    }
    const auto of_lengths = std::span<const std::int64_t>(lengths).subspan(
        std::size_t(begin), std::size_t(end - begin));
    const auto found = balanced_homes(of_window, of_lengths, kHomeImbalance);
    homes.window_imbalance = std::max(homes.window_imbalance,
                                      imbalance(tokens_of_ranks(found, of_lengths, scores.cols())));
    homes.of_sequence.insert(homes.of_sequence.end(), found.begin(), found.end());
  }
  homes.imbalance = imbalance(tokens_of_ranks(homes.of_sequence, lengths, scores.cols()));
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    std::fill(homes.of_token.begin() + sequences[s].begin,
              homes.of_token.begin() + sequences[s].end, homes.of_sequence[s]);
  }
  return homes;
}

Prediction predict_with_homes(const RoutedTokens& tokens, std::span<const RankId> home_of_token,
                              std::span<const Placement> placements, const PredictRequest& request,
                              int num_threads, Progress& progress) {
  C2R_REQUIRE(tokens.trace != nullptr && std::ssize(home_of_token) == tokens.trace->num_tokens(),
              kInvalidArgument, "there are {} homes, but not as many tokens in {}",
              home_of_token.size(), tokens.name);
  PredictRequest with_homes = request;
  with_homes.traffic.homes = Homes::kSequences;  // each token has one home
  const auto reach = count_reach(*tokens.trace, tokens.ranges, home_of_token, placements,
                                 with_homes.traffic, num_threads, progress);
  Prediction prediction = predict_reach({}, tokens, reach, with_homes).prediction;
  prediction.homes = Homes::kSignature;
  return prediction;
}

}  // namespace c2r
