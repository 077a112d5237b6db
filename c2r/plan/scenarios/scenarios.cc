// Parses the text of scenarios and groups sequences.
#include "c2r/plan/scenarios/scenarios.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/rng.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

constexpr std::string_view kClusters = "clusters:";
constexpr std::int64_t kMostFeatureLayers = 8;  // of clusters, at equal distances
constexpr int kClusterRounds = 30;
constexpr std::uint64_t kClusterSeed = 1;

// Both ascending and disjoint.
std::vector<TokenRange> common_tokens(std::span<const TokenRange> a,
                                      std::span<const TokenRange> b) {
  std::vector<TokenRange> common;
  auto of_a = a.begin();
  auto of_b = b.begin();
  while (of_a != a.end() && of_b != b.end()) {
    const TokenRange both{std::max(of_a->begin, of_b->begin), std::min(of_a->end, of_b->end)};
    if (both.begin < both.end) common.push_back(both);
    of_a->end < of_b->end ? ++of_a : ++of_b;
  }
  return common;
}

std::vector<Scenario> scenarios_by_parts(const Trace& trace, std::span<const TokenRange> fitted,
                                         std::string_view text) {
  std::vector<Scenario> scenarios;
  std::vector<SequencePart> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const SequencePart part = parse_sequence_part(text.substr(begin, end - begin));
    for (const SequencePart other : parts) {
      C2R_REQUIRE(!overlap(part, other), kInvalidArgument,
                  "the scenarios {} and {} share sequences, but each sequence is in one scenario",
                  name_of(other), name_of(part));
    }
    parts.push_back(part);
    scenarios.push_back(
        {std::string(name_of(part)), common_tokens(fitted, ranges_of(trace, part))});
    begin = end + 1;
  }
  return scenarios;
}

// Groups of neighbours, by the middle of each sequence.
std::vector<std::int64_t> groups_in_order(std::span<const TokenRange> sequences,
                                          std::int64_t num_groups) {
  const std::int64_t total = num_tokens_in(sequences);
  std::int64_t done = 0;
  std::vector<std::int64_t> groups;
  for (const TokenRange& sequence : sequences) {
    const std::int64_t size = sequence.end - sequence.begin;
    groups.push_back((done + size / 2) * num_groups / total);
    done += size;
  }
  return groups;
}

// The share of each expert in the choices of a sequence, in a few layers.
Matrix<float> features_of(const Trace& trace, std::span<const TokenRange> sequences) {
  const TraceHeader& header = trace.header();
  const std::int64_t num_layers = std::min(header.num_layers(), kMostFeatureLayers);
  Matrix<float> features(std::ssize(sequences), num_layers * header.num_experts);
  for (std::int64_t row = 0; row < std::ssize(sequences); ++row) {
    const auto of_sequence = features.row(row);
    const TokenRange& sequence = at(sequences, row);
    const auto share = 1 / static_cast<float>(sequence.end - sequence.begin);
    for (std::int64_t l = 0; l < num_layers; ++l) {
      const std::int64_t layer = l * header.num_layers() / num_layers;
      for (const TokenRange& piece : pieces_of(std::span(&sequence, 1))) {
        const auto choices = trace.topk_idx(layer, piece.begin, piece.end);
        for (const ExpertId e : choices.all()) {
          if (e != kNoExpert) at(of_sequence, l * header.num_experts + std::int64_t(e)) += share;
        }
      }
    }
  }
  return features;
}

double distance2(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double(a[i] - b[i]) * double(a[i] - b[i]);
  return sum;
}

// Weights sequences by their tokens.
class SequenceClusters {
 public:
  SequenceClusters(const Matrix<float>& features, std::span<const TokenRange> sequences,
                   std::int64_t num_clusters)
      : features_(features), centres_(num_clusters, features.cols()), nearest_(sequences.size()) {
    for (const TokenRange& sequence : sequences) {
      tokens_.push_back(static_cast<double>(sequence.end - sequence.begin));
    }
    seed();
    for (int round = 0; round < kClusterRounds && assign(); ++round) move_centres();
  }

  const std::vector<std::int64_t>& groups() const { return nearest_; }

 private:
  // k-means++: each centre is a sequence that is drawn by its squared distance from the others.
  void seed() {
    std::mt19937_64 rng(kClusterSeed);
    std::vector<double> apart = tokens_;
    for (std::int64_t cluster = 0; cluster < centres_.rows(); ++cluster) {
      double total = 0;
      for (const double weight : apart) total += weight;
      double left = total * double(uniform_below(1 << 30, rng)) / double(1 << 30);
      std::int64_t drawn = 0;
      while (drawn + 1 < std::ssize(apart) && left >= at(apart, drawn)) left -= at(apart, drawn++);
      std::ranges::copy(features_.row(drawn), centres_.row(cluster).begin());
      for (std::int64_t row = 0; row < features_.rows(); ++row) {
        const double met = at(tokens_, row) * distance2(features_.row(row), centres_.row(cluster));
        at(apart, row) = cluster == 0 ? met : std::min(at(apart, row), met);
      }
    }
  }

  // @returns whether a sequence changed its cluster
  bool assign() {
    bool has_changed = false;
    for (std::int64_t row = 0; row < features_.rows(); ++row) {
      std::int64_t best = 0;
      double least = distance2(features_.row(row), centres_.row(0));
      for (std::int64_t cluster = 1; cluster < centres_.rows(); ++cluster) {
        const double met = distance2(features_.row(row), centres_.row(cluster));
        if (met < least) least = met, best = cluster;
      }
      has_changed |= std::exchange(at(nearest_, row), best) != best;
    }
    return has_changed;
  }

  void move_centres() {
    Matrix<double> sums(centres_.rows(), centres_.cols());
    std::vector<double> tokens(std::size_t(centres_.rows()));
    for (std::int64_t row = 0; row < features_.rows(); ++row) {
      const std::int64_t cluster = at(nearest_, row);
      at(tokens, cluster) += at(tokens_, row);
      const auto features = features_.row(row);
      const auto sum = sums.row(cluster);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += at(tokens_, row) * double(features[i]);
    }
    for (std::int64_t cluster = 0; cluster < centres_.rows(); ++cluster) {
      if (at(tokens, cluster) == 0) continue;
      const auto sum = sums.row(cluster);
      const auto centre = centres_.row(cluster);
      for (std::size_t i = 0; i < sum.size(); ++i) {
        centre[i] = static_cast<float>(sum[i] / at(tokens, cluster));
      }
    }
  }

  const Matrix<float>& features_;
  Matrix<float> centres_;              // [num_clusters, features]
  std::vector<double> tokens_;         // [num_sequences]
  std::vector<std::int64_t> nearest_;  // [num_sequences]
};

std::vector<Scenario> scenarios_by_groups(std::span<const TokenRange> sequences,
                                          std::span<const std::int64_t> groups,
                                          std::int64_t num_groups, std::string_view prefix) {
  std::vector<Scenario> scenarios(static_cast<std::size_t>(num_groups));
  for (std::size_t group = 0; group < scenarios.size(); ++group) {
    scenarios[group].name = fmt::format("{}{} of {}", prefix, group + 1, num_groups);
  }
  for (std::size_t sequence = 0; sequence < sequences.size(); ++sequence) {
    auto& ranges = at(scenarios, groups[sequence]).ranges;
    if (!ranges.empty() && ranges.back().end == sequences[sequence].begin) {
      ranges.back().end = sequences[sequence].end;
    } else {
      ranges.push_back(sequences[sequence]);
    }
  }
  return scenarios;
}

std::vector<Scenario> scenarios_by_text(const Trace& trace, std::span<const TokenRange> fitted,
                                        std::span<const TokenRange> traces, std::string_view text) {
  if (text == "traces") {
    std::vector<Scenario> scenarios;
    for (std::size_t i = 0; i < traces.size(); ++i) {
      scenarios.push_back({fmt::format("trace {} of {}", i + 1, traces.size()),
                           common_tokens(fitted, traces.subspan(i, 1))});
    }
    return scenarios;
  }
  const bool is_clusters = text.starts_with(kClusters);
  const std::string_view digits = is_clusters ? text.substr(kClusters.size()) : text;
  const bool is_number = !digits.empty() && digits.find_first_not_of("0123456789") == digits.npos;
  if (!is_number && !is_clusters) return scenarios_by_parts(trace, fitted, text);
  const std::int64_t num_groups = parse_integer(digits).value_or(0);
  auto sequences = sequences_in(trace, fitted);
  std::erase_if(sequences, [](const TokenRange& s) { return s.begin == s.end; });
  C2R_REQUIRE(2 <= num_groups && num_groups <= std::min(kMaxScenarios, std::ssize(sequences)),
              kInvalidArgument,
              "scenarios '{}' of {} fitted sequences: their number must be in [2, {}]", text,
              sequences.size(), std::min(kMaxScenarios, std::ssize(sequences)));
  if (!is_clusters) {
    return scenarios_by_groups(sequences, groups_in_order(sequences, num_groups), num_groups, "");
  }
  const auto features = features_of(trace, sequences);
  const SequenceClusters clusters(features, sequences, num_groups);
  auto scenarios = scenarios_by_groups(sequences, clusters.groups(), num_groups, "cluster ");
  std::erase_if(scenarios, [](const Scenario& s) { return s.ranges.empty(); });  // of equal ones
  return scenarios;
}

}  // namespace

std::vector<Scenario> scenarios_of(const Trace& trace, std::span<const TokenRange> fitted,
                                   std::span<const TokenRange> traces, std::string_view text) {
  auto scenarios = scenarios_by_text(trace, fitted, traces, text);
  std::int64_t num_tokens = 0;
  for (const Scenario& scenario : scenarios) {
    C2R_REQUIRE(!scenario.ranges.empty(), kInvalidArgument, "the scenario {} has no fitted tokens",
                scenario.name);
    num_tokens += num_tokens_in(scenario.ranges);
  }
  C2R_REQUIRE(num_tokens == num_tokens_in(fitted), kInvalidArgument,
              "the scenarios '{}' are {} of the {} fitted tokens, but must be all of them", text,
              num_tokens, num_tokens_in(fitted));
  C2R_REQUIRE(2 <= std::ssize(scenarios) && std::ssize(scenarios) <= kMaxScenarios,
              kInvalidArgument, "there are {} scenarios, but must be 2 to {}", scenarios.size(),
              kMaxScenarios);
  return scenarios;
}

}  // namespace c2r
