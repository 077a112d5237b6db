// Aligns the labels of ranks over layers, and fits the signature of homes.
#include "c2r/plan/homes/fit_homes.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <set>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/cost/replica_rule.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

constexpr int kAlignRounds = 50;        // it ends by itself after some 5
constexpr int kHomeRounds = 20;         // the same
constexpr double kRidge = 0.01;         // of the mean variance of a feature
constexpr double kFitImbalance = 1.02;  // that the prices reach on the fitted sequences

// Which sequence a token is of, for all tokens in ascending sequences.
std::size_t sequence_of(std::span<const TokenRange> sequences, std::int64_t token) {
  const auto after = std::ranges::upper_bound(sequences, token, {}, &TokenRange::begin);
  return static_cast<std::size_t>(after - sequences.begin()) - 1;
}

// @returns the tokens of each sequence that visit each rank in one layer. [num_sequences, ep_size]
Matrix<double> count_visits(const Trace& trace, std::int64_t layer,
                            std::span<const TokenRange> sequences, const Placement& placement,
                            const Cluster& cluster) {
  ReplicaChooser chooser(placement,
                         {.cluster = cluster, .replica_rule = ReplicaRule::kFewestRanks});
  Matrix<double> visits(std::ssize(sequences), cluster.ep_size());
  std::vector<RankId> served_by(std::size_t(trace.header().top_k));
  for (const TokenRange& piece : pieces_of(sequences)) {
    const auto topk_idx = trace.topk_idx(layer, piece.begin, piece.end);
    for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
      chooser.choose(topk_idx.row(t), RankId{0}, piece.begin + t, served_by);
      const auto row = visits.row(std::int64_t(sequence_of(sequences, piece.begin + t)));
      const std::set<RankId> ranks(served_by.begin(), served_by.end());
      for (const RankId rank : ranks) {
        if (rank != kNoRank) ++at(row, rank);
      }
    }
  }
  return visits;
}

void centre_rows(Matrix<double>& matrix) {
  for (std::int64_t r = 0; r < matrix.rows(); ++r) {
    double mean = 0;
    for (const double value : matrix.row(r)) mean += value / double(matrix.cols());
    for (double& value : matrix.row(r)) value -= mean;
  }
}

// sums(s, label_of[r]) += sign x visits(s, r)
void add_labelled(const Matrix<double>& visits, std::span<const RankId> label_of, double sign,
                  Matrix<double>& sums) {
  for (std::int64_t s = 0; s < visits.rows(); ++s) {
    const auto from = visits.row(s);
    const auto to = sums.row(s);
    for (std::size_t r = 0; r < from.size(); ++r) at(to, label_of[r]) += sign * from[r];
  }
}

Matrix<double> label_gains(const Matrix<double>& visits, const Matrix<double>& others) {
  Matrix<double> gain(visits.cols(), visits.cols());
  for (std::int64_t s = 0; s < visits.rows(); ++s) {
    for (std::int64_t r = 0; r < gain.rows(); ++r) {
      for (std::int64_t label = 0; label < gain.cols(); ++label) {
        gain(r, label) += visits(s, r) * others(s, label);
      }
    }
  }
  return gain;
}

// @returns the tokens of each sequence that visit each label, of all layers. [num_sequences,
//          ep_size]
Matrix<double> sums_of(std::span<const Matrix<double>> visits,
                       std::span<const std::vector<RankId>> label_of) {
  Matrix<double> sums(visits[0].rows(), visits[0].cols());
  for (std::size_t layer = 0; layer < visits.size(); ++layer) {
    add_labelled(visits[layer], label_of[layer], 1, sums);
  }
  return sums;
}

// @returns how many tokens visit rank r whose sequence has the home `label`. [ep_size, ep_size]
Matrix<double> gains_of_homes(const Matrix<double>& visits, std::span<const RankId> homes) {
  Matrix<double> gain(visits.cols(), visits.cols());
  for (std::int64_t s = 0; s < visits.rows(); ++s) {
    const auto home = static_cast<std::int64_t>(at(homes, s));
    for (std::int64_t r = 0; r < gain.rows(); ++r) gain(r, home) += visits(s, r);
  }
  return gain;
}

double gain_of(const Matrix<double>& gain, std::span<const RankId> label_of) {
  double sum = 0;
  for (std::int64_t r = 0; r < gain.rows(); ++r) {
    sum += gain(r, static_cast<std::int64_t>(at(label_of, r)));
  }
  return sum;
}

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Weighted least squares with a penalty on the size of the solution.
// @param features [num_rows, num_features], targets [num_rows, num_targets]; weights [num_rows]
// @returns [num_features, num_targets]
Matrix<double> ridge(const Matrix<double>& features, const Matrix<double>& targets,
                     std::span<const double> weights) {
  const Eigen::Map<const RowMajor> x(features.all().data(), features.rows(), features.cols());
  const Eigen::Map<const RowMajor> y(targets.all().data(), targets.rows(), targets.cols());
  const Eigen::Map<const Eigen::VectorXd> w(weights.data(), std::ssize(weights));
  RowMajor normal = x.transpose() * w.asDiagonal() * x;
  // A feature that never occurs needs some penalty, too.
  const double penalty =
      std::max(kRidge * normal.trace() / double(std::max<std::int64_t>(normal.rows(), 1)), 1e-12);
  normal.diagonal().array() += penalty;
  Matrix<double> solution(features.cols(), targets.cols());
  Eigen::Map<RowMajor>(solution.all().data(), solution.rows(), solution.cols()) =
      normal.llt().solve(x.transpose() * w.asDiagonal() * y);
  return solution;
}

// What the signature is to estimate: of each sequence the share of its tokens that visit each rank,
// the mean over layers, less the mean over tokens. [num_sequences, ep_size]
Matrix<double> targets_of(const Matrix<double>& sums, std::int64_t num_layers,
                          std::span<const double> lengths) {
  Matrix<double> targets(sums.rows(), sums.cols());
  double all = 0;
  std::vector<double> mean(std::size_t(sums.cols()));
  for (std::int64_t s = 0; s < sums.rows(); ++s) {
    all += at(lengths, s);
    for (std::size_t r = 0; r < mean.size(); ++r) mean[r] += sums(s, std::int64_t(r));
  }
  for (std::int64_t s = 0; s < sums.rows(); ++s) {
    for (std::size_t r = 0; r < mean.size(); ++r) {
      targets(s, std::int64_t(r)) =
          (sums(s, std::int64_t(r)) / at(lengths, s) - mean[r] / all) / double(num_layers);
    }
  }
  return targets;
}

struct LayerFit {
  double error = std::numeric_limits<double>::infinity();  // squared, weighted by tokens
  Matrix<double> weights;                                  // [num_experts, ep_size]
  Matrix<double> estimates;                                // [num_sequences, ep_size]
};

LayerFit fit_layer(const Matrix<double>& features, const Matrix<double>& targets,
                   std::span<const double> lengths) {
  LayerFit fit{.error = 0,
               .weights = ridge(features, targets, lengths),
               .estimates = {targets.rows(), targets.cols()}};
  for (std::int64_t s = 0; s < targets.rows(); ++s) {
    for (std::int64_t e = 0; e < features.cols(); ++e) {
      if (features(s, e) == 0) continue;
      for (std::int64_t r = 0; r < targets.cols(); ++r) {
        fit.estimates(s, r) += features(s, e) * fit.weights(e, r);
      }
    }
    for (std::int64_t r = 0; r < targets.cols(); ++r) {
      const double off = fit.estimates(s, r) - targets(s, r);
      fit.error += at(lengths, s) * off * off;
    }
  }
  return fit;
}

}  // namespace

std::vector<TokenRange> sequences_in(const Trace& trace, std::span<const TokenRange> ranges) {
  const auto starts = trace.sequence_starts();
  std::vector<TokenRange> sequences;
  for (std::size_t s = 0; s < starts.size(); ++s) {
    const std::int64_t end = s + 1 < starts.size() ? starts[s + 1] : trace.num_tokens();
    const bool is_in = std::ranges::any_of(ranges, [&](const TokenRange& range) {
      return range.begin <= starts[s] && starts[s] < range.end;
    });
    if (is_in && starts[s] < end) sequences.push_back({starts[s], end});
  }
  return sequences;
}

std::vector<std::int64_t> lengths_of(std::span<const TokenRange> sequences) {
  std::vector<std::int64_t> lengths;
  lengths.reserve(sequences.size());
  for (const TokenRange& sequence : sequences) lengths.push_back(sequence.end - sequence.begin);
  return lengths;
}

std::vector<std::vector<RankId>> aligned_labels(std::span<const Matrix<double>> visits,
                                                const Cluster& cluster) {
  std::vector<RankId> own;
  own.reserve(static_cast<std::size_t>(cluster.ep_size()));
  for (std::int32_t r = 0; r < cluster.ep_size(); ++r) own.push_back(RankId{r});
  std::vector<std::vector<RankId>> label_of(visits.size(), own);
  if (visits.empty()) return label_of;
  std::vector<Matrix<double>> centred(visits.begin(), visits.end());
  for (Matrix<double>& layer : centred) centre_rows(layer);
  Matrix<double> sums(visits[0].rows(), visits[0].cols());
  for (const Matrix<double>& layer : centred) add_labelled(layer, own, 1, sums);
  bool changes = true;
  for (int round = 0; round < kAlignRounds && changes; ++round) {
    changes = false;
    for (std::size_t layer = 0; layer < centred.size(); ++layer) {
      add_labelled(centred[layer], label_of[layer], -1, sums);
      const Matrix<double> gain = label_gains(centred[layer], sums);
      auto better = best_labels(gain, cluster);
      const double before = gain_of(gain, label_of[layer]);
      if (gain_of(gain, better) > before + 1e-9 * std::abs(before)) {
        label_of[layer] = std::move(better);
        changes = true;
      }
      add_labelled(centred[layer], label_of[layer], 1, sums);
    }
  }
  return label_of;
}

std::vector<std::vector<RankId>> labels_for_homes(std::span<const Matrix<double>> visits,
                                                  std::span<const std::int64_t> num_tokens,
                                                  const Cluster& cluster,
                                                  std::vector<std::vector<RankId>> label_of) {
  auto best = label_of;
  double most = -1;
  const std::vector<double> lengths(num_tokens.begin(), num_tokens.end());
  for (int round = 0; round < kHomeRounds && !visits.empty(); ++round) {
    const Matrix<double> sums = sums_of(visits, label_of);
    const Matrix<double> scores = targets_of(sums, std::ssize(visits), lengths);
    const auto homes = priced_homes(scores, even_prices(scores, num_tokens, kFitImbalance));
    double at_home = 0;
    for (std::size_t s = 0; s < homes.size(); ++s) {
      at_home += at(sums.row(std::int64_t(s)), homes[s]);
    }
    if (at_home <= most) break;
    most = at_home, best = label_of;
    for (std::size_t layer = 0; layer < visits.size(); ++layer) {
      label_of[layer] = best_labels(gains_of_homes(visits[layer], homes), cluster);
    }
    if (label_of == best) break;
  }
  return best;
}

Matrix<double> visited_shares(const Trace& trace, std::span<const TokenRange> sequences,
                              std::span<const Placement> placements, const Cluster& cluster,
                              int num_threads) {
  std::vector<Matrix<double>> visits(placements.size());
  parallel_for(std::ssize(visits), num_threads, [&](std::int64_t layer, int) {
    at(visits, layer) = count_visits(trace, layer, sequences, at(placements, layer), cluster);
  });
  Matrix<double> shares(std::ssize(sequences), cluster.ep_size());
  for (std::int64_t s = 0; s < shares.rows(); ++s) {
    const double num_tokens = double(at(sequences, s).end - at(sequences, s).begin);
    for (const Matrix<double>& layer : visits) {
      for (std::int64_t r = 0; r < shares.cols(); ++r) {
        shares(s, r) += layer(s, r) / num_tokens / double(visits.size());
      }
    }
  }
  return shares;
}

FittedHomes fit_homes(const RoutedTokens& tokens, std::span<const Placement> placements,
                      const Cluster& cluster, std::int64_t num_tokens, int num_threads,
                      Progress& progress) {
  C2R_REQUIRE(tokens.trace != nullptr, kInvalidArgument,
              "homes by signature need a trace with sequences, but {} has none", tokens.name);
  C2R_REQUIRE(num_tokens >= 1, kInvalidArgument,
              "the signature looks at {} tokens, but must look at 1 or more", num_tokens);
  const Trace& trace = *tokens.trace;
  const auto sequences = sequences_in(trace, tokens.ranges);
  C2R_REQUIRE(sequences.size() >= 2, kInvalidArgument,
              "homes by signature need two sequences to fit, but {} has {} there", trace.path(),
              sequences.size());
  const std::int64_t num_layers = trace.header().num_layers();
  C2R_REQUIRE(std::ssize(placements) == num_layers, kInvalidArgument,
              "there are {} placements for {} layers", placements.size(), num_layers);
  progress.begin("fitting homes");
  std::vector<Matrix<double>> visits(placements.size());
  parallel_for(num_layers, num_threads, [&](std::int64_t layer, int) {
    at(visits, layer) = count_visits(trace, layer, sequences, at(placements, layer), cluster);
  });
  const std::vector<std::int64_t> num_tokens_of = lengths_of(sequences);
  FittedHomes fitted{.label_of = labels_for_homes(visits, num_tokens_of, cluster,
                                                  aligned_labels(visits, cluster))};
  const std::vector<double> lengths(num_tokens_of.begin(), num_tokens_of.end());
  const Matrix<double> targets = targets_of(sums_of(visits, fitted.label_of), num_layers, lengths);
  std::vector<LayerFit> fits(placements.size());
  parallel_for(num_layers, num_threads, [&](std::int64_t layer, int) {
    at(fits, layer) =
        fit_layer(prefix_shares(trace, layer, sequences, num_tokens), targets, lengths);
  });
  const auto best = std::ranges::min_element(fits, {}, &LayerFit::error);
  const auto prices = even_prices(best->estimates, num_tokens_of, kFitImbalance);
  fitted.signature = {.layer_index = at(trace.header().layer_indices, best - fits.begin()),
                      .num_tokens = num_tokens,
                      .weights = {cluster.ep_size(), trace.header().num_experts}};
  for (std::int64_t r = 0; r < cluster.ep_size(); ++r) {
    for (std::int64_t e = 0; e < best->weights.rows(); ++e) {
      fitted.signature.weights(r, e) =
          best->weights(e, r) - at(prices, r) / double(trace.header().top_k);
    }
  }
  progress.update(num_layers, num_layers);
  return fitted;
}

}  // namespace c2r
