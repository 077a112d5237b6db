// Sums the loads of ranks over sequences, and takes standard errors of the sums.
#include "c2r/plan/prediction/load_variation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/plan/homes/fit_homes.h"

namespace c2r {
namespace {

constexpr std::int64_t kFewestSequences = 4;  // two in each half
// Loads that differ by chance alone rarely differ by more than this over what they should.
constexpr double kGrouped = 3;

// Sums over the sequences of one half. y: choices that a rank serves, n: all of them.
struct LoadSums {
  double num_sequences = 0, n = 0, nn = 0;
  std::vector<double> y, yy, yn;  // [ep_size]

  explicit LoadSums(std::int32_t ep_size)
      : y(std::size_t(ep_size)), yy(std::size_t(ep_size)), yn(std::size_t(ep_size)) {}

  void add(std::span<const double> of_rank) {
    double all = 0;
    for (const double choices : of_rank) all += choices;
    if (all == 0) return;
    ++num_sequences, n += all, nn += all * all;
    for (std::size_t r = 0; r < y.size(); ++r) {
      y[r] += of_rank[r], yy[r] += of_rank[r] * of_rank[r], yn[r] += of_rank[r] * all;
    }
  }
  double load(std::size_t r) const { return double(y.size()) * y[r] / n; }
  // The square of the standard error of load(r).
  double variance(std::size_t r) const {
    const double share = y[r] / n;
    const double squares = std::max(0.0, yy[r] - 2 * share * yn[r] + share * share * nn);
    const double ep_size = double(y.size());
    return ep_size * ep_size * num_sequences / (num_sequences - 1) * squares / (n * n);
  }
};

LoadSums sum_of(const LoadSums& a, const LoadSums& b) {
  LoadSums sum = a;
  sum.num_sequences += b.num_sequences, sum.n += b.n, sum.nn += b.nn;
  for (std::size_t r = 0; r < sum.y.size(); ++r) {
    sum.y[r] += b.y[r], sum.yy[r] += b.yy[r], sum.yn[r] += b.yn[r];
  }
  return sum;
}

using Halves = std::array<LoadSums, 2>;

Halves sums_of_layer(const Trace& trace, std::int64_t layer, std::span<const TokenRange> sequences,
                     const Placement& placement) {
  const auto hosts_of = ranks_of_experts(placement);
  Halves halves = {LoadSums(placement.ep_size()), LoadSums(placement.ep_size())};
  std::vector<double> of_rank(std::size_t(placement.ep_size()));
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    std::ranges::fill(of_rank, 0);
    const auto topk_idx = trace.topk_idx(layer, sequences[s].begin, sequences[s].end);
    for (const ExpertId e : topk_idx.all()) {
      if (e == kNoExpert) continue;
      const auto& hosts = at(hosts_of, e);
      for (const RankId host : hosts) at(of_rank, host) += 1 / double(hosts.size());
    }
    halves[2 * s < sequences.size() ? 0 : 1].add(of_rank);
  }
  return halves;
}

}  // namespace

std::optional<LoadVariation> load_variation(const RoutedTokens& tokens,
                                            std::span<const Placement> placements,
                                            int num_threads) {
  if (tokens.trace == nullptr) return std::nullopt;
  const Trace& trace = *tokens.trace;
  C2R_REQUIRE(std::ssize(placements) == trace.header().num_layers(), kInvalidArgument,
              "there are {} placements for {} layers", placements.size(),
              trace.header().num_layers());
  const auto sequences = sequences_in(trace, tokens.ranges);
  if (std::ssize(sequences) < kFewestSequences) return std::nullopt;
  std::vector<std::optional<Halves>> sums(placements.size());
  parallel_for(std::ssize(sums), num_threads, [&](std::int64_t layer, int) {
    at(sums, layer) = sums_of_layer(trace, layer, sequences, at(placements, layer));
  });
  LoadVariation variation{.num_sequences = std::ssize(sequences)};
  double variance = 0, explained = 0, different = 0, num_loads = 0;
  for (const auto& layer : sums) {
    const auto& [first, second] = *layer;
    if (first.num_sequences < 2 || second.num_sequences < 2) return std::nullopt;
    const LoadSums all = sum_of(first, second);
    for (std::size_t r = 0; r < all.y.size(); ++r, ++num_loads) {
      variance += all.variance(r);
      explained += first.variance(r) + second.variance(r);
      different += std::pow(first.load(r) - second.load(r), 2);
    }
  }
  variation.standard_error = std::sqrt(variance / num_loads);
  variation.half_difference = explained > 0 ? std::sqrt(different / explained) : 0;
  return variation;
}

std::string sample_warning(const LoadVariation& variation, double max_imbalance,
                           bool is_estimated) {
  std::string text;
  if (2 * variation.standard_error > max_imbalance - 1) {
    text = fmt::format(
        "the load of a rank is known to {:.1f} % only (two standard errors over {} fitted "
        "sequences), so layers will exceed the bound of {:.4g} on imbalance on other tokens: "
        "record more sequences, or take a higher bound",
        200 * variation.standard_error, variation.num_sequences, max_imbalance);
  }
  if (is_estimated && variation.half_difference > kGrouped) {
    text += fmt::format(
        "{}the fitted sequences are grouped, as by subject: loads of ranks differ between their "
        "first and second half {:.1f} times as much as chance explains, so the bound for other "
        "tokens holds for the same mixture alone",
        text.empty() ? "" : "; ", variation.half_difference);
  }
  return text;
}

}  // namespace c2r
