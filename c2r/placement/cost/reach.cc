// Counts which ranks and nodes serve the tokens of a trace, or of a batch in memory.
#include "c2r/placement/cost/reach.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/cost/reach_parts.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

Reach empty_reach(const Placement& placement, const TrafficModel& traffic, std::int64_t num_homes) {
  const std::int64_t ep_size = traffic.cluster.ep_size();
  return {.denominator = traffic.homes == Homes::kUniform ? ep_size : 1,
          .num_tokens = std::vector<std::int64_t>(static_cast<std::size_t>(num_homes)),
          .choices_on_rank = {num_homes, ep_size},
          .tokens_on_rank = {num_homes, ep_size},
          .tokens_on_node = {num_homes, traffic.cluster.num_nodes},
          .choices_of_expert = {placement.num_experts, ep_size}};
}

void add_to(std::span<std::int64_t> sums, std::span<const std::int64_t> counts) {
  std::ranges::transform(sums, counts, sums.begin(), std::plus());
}

// The first of every run of `num_alike` homes gets what `alike` has for its only home.
void add_to_first_homes(const Reach& alike, std::int64_t num_alike, Reach& reach) {
  for (std::int64_t home = 0; home < reach.tokens_on_rank.rows(); home += num_alike) {
    at(reach.num_tokens, home) += alike.num_tokens[0];
    add_to(reach.choices_on_rank.row(home), alike.choices_on_rank.row(0));
    add_to(reach.tokens_on_rank.row(home), alike.tokens_on_rank.row(0));
    add_to(reach.tokens_on_node.row(home), alike.tokens_on_node.row(0));
    add_to(reach.choices_of_expert.all(), alike.choices_of_expert.all());
  }
}

// Every run of `num_alike` homes gets what its first one has.
void copy_to_alike_homes(std::int64_t num_alike, Reach& reach) {
  for (std::int64_t home = 0; home < reach.tokens_on_rank.rows(); ++home) {
    const std::int64_t first = home - home % num_alike;
    at(reach.num_tokens, home) = at(reach.num_tokens, first);
    for (auto* counts : {&reach.choices_on_rank, &reach.tokens_on_rank, &reach.tokens_on_node}) {
      if (home != first) std::ranges::copy(counts->row(first), counts->row(home).begin());
    }
  }
  for (std::int64_t& count : reach.choices_of_expert.all()) count *= num_alike;
}

void check_sequence_starts(std::span<const std::int64_t> starts, std::int64_t num_tokens) {
  std::int64_t least = 0;
  for (std::size_t s = 0; s < starts.size(); ++s) {
    C2R_REQUIRE(least <= starts[s] && starts[s] <= num_tokens, kInvalidArgument,
                "sequence {} starts at token {}, but must start in [{}, {}]", s, starts[s], least,
                num_tokens);
    least = starts[s];
  }
}

// The homes of the tokens of a trace whose sequences live on the ranks in turn. Takes 4 bytes for
// each sequence and none for each token.
class SequencesOnRanks {
 public:
  SequencesOnRanks(std::span<const std::int64_t> starts, std::int64_t num_tokens,
                   std::int32_t ep_size, std::span<const TokenRange> ranges)
      : starts_(starts) {
    C2R_REQUIRE(ep_size >= 1, kInvalidArgument, "sequences cannot live on {} ranks", ep_size);
    check_sequence_starts(starts, num_tokens);
    std::int32_t num_inside = 0, num_outside = 0;
    auto range = ranges.begin();
    for (const std::int64_t start : starts) {
      while (range != ranges.end() && range->end <= start) ++range;
      const bool is_inside = range != ranges.end() && range->begin <= start;
      homes_.push_back(RankId{(is_inside ? num_inside : num_outside)++ % ep_size});
    }
  }

  // Replaces `homes` by those of the tokens of a piece.
  void homes_of(const TokenRange& piece, std::vector<RankId>& homes) const {
    homes.assign(static_cast<std::size_t>(piece.end - piece.begin), RankId{0});
    // Of sequences with the same start, the last has the tokens.
    auto next = std::ranges::upper_bound(starts_, piece.begin);
    if (next != starts_.begin()) --next;
    for (; next != starts_.end() && *next < piece.end; ++next) {
      const std::int64_t begin = std::max(*next, piece.begin);
      std::fill(homes.begin() + (begin - piece.begin), homes.end(),
                at(homes_, next - starts_.begin()));
    }
  }

 private:
  std::span<const std::int64_t> starts_;
  std::vector<RankId> homes_;  // [num_sequences]
};

}  // namespace

std::vector<RankId> homes_of_sequences(std::span<const std::int64_t> sequence_starts,
                                       std::int64_t num_tokens, std::int32_t ep_size,
                                       std::span<const TokenRange> ranges) {
  const SequencesOnRanks sequences(sequence_starts, num_tokens, ep_size, ranges);
  std::vector<RankId> homes;
  sequences.homes_of({0, num_tokens}, homes);
  return homes;
}

ReachCounter::ReachCounter(const Placement& placement, const TrafficModel& traffic,
                           const Progress* progress)
    : traffic_(traffic),
      progress_(progress),
      chooser_(placement, traffic),
      reach_(empty_reach(placement, traffic, traffic.cluster.ep_size())),
      alike_(empty_reach(placement, traffic, 1)),
      num_alike_homes_(traffic.homes == Homes::kUniform ? chooser_.num_alike_homes() : 1),
      last_on_rank_(static_cast<std::size_t>(traffic.cluster.ep_size())),
      last_on_node_(static_cast<std::size_t>(traffic.cluster.num_nodes)) {
  C2R_REQUIRE(traffic.homes != Homes::kSignature, kUnsupported,
              "homes by signature are counted for a plan that has one; take uniform or sequences");
  for (std::int32_t rank = 0; rank < traffic.cluster.ep_size(); ++rank) {
    node_of_rank_.push_back(traffic.cluster.node_of(RankId{rank}));
  }
}

void ReachCounter::add(MatrixView<const ExpertId> topk_idx, std::span<const RankId> homes) {
  serve(topk_idx, homes, /*is_counted=*/true);
}

void ReachCounter::serve_before(MatrixView<const ExpertId> topk_idx,
                                std::span<const RankId> homes) {
  serve(topk_idx, homes, /*is_counted=*/false);
}

void ReachCounter::serve(MatrixView<const ExpertId> topk_idx, std::span<const RankId> homes,
                         bool is_counted) {
  C2R_REQUIRE((traffic_.homes == Homes::kSequences ? topk_idx.rows() : 0) == std::ssize(homes),
              kInvalidArgument, "{} home ranks were given for {} tokens, with homes {}",
              homes.size(), topk_idx.rows(), name_of(traffic_.homes));
  C2R_REQUIRE(topk_idx.cols() <= kMaxTopK, kInvalidArgument,
              "tokens have {} choices, but at most {} can be served", topk_idx.cols(), kMaxTopK);
  check_topk_idx(topk_idx, static_cast<std::int32_t>(reach_.choices_of_expert.rows()),
                 topk_idx.cols());
  const auto stray =
      std::ranges::find_if(homes, [&](RankId home) { return index(home) >= last_on_rank_.size(); });
  C2R_REQUIRE(stray == homes.end(), kInvalidArgument,
              "token {} lives on rank {}, but the cluster has ranks 0 to {}", stray - homes.begin(),
              static_cast<std::int32_t>(*stray), last_on_rank_.size() - 1);
  served_by_.resize(static_cast<std::size_t>(topk_idx.cols()));
  constexpr std::int64_t kTokensUntilAsked = 64;
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t, ++next_token_) {
    if (progress_ != nullptr && t % kTokensUntilAsked == 0) progress_->throw_if_stopped();
    const auto experts = topk_idx.row(t);
    if (homes.empty()) {
      serve_uniformly(experts, is_counted);
      continue;
    }
    const RankId home = at(homes, t);
    chooser_.choose(experts, home, next_token_, served_by_);
    if (is_counted) count_token(experts, home, reach_);
  }
}

void ReachCounter::serve_uniformly(std::span<const ExpertId> experts, bool is_counted) {
  if (chooser_.choose_alike(experts, num_alike_homes_, served_by_)) {
    if (is_counted) count_token(experts, RankId{0}, alike_);
    return;
  }
  for (std::int32_t home = 0; home < traffic_.cluster.ep_size(); home += num_alike_homes_) {
    chooser_.choose(experts, RankId{home}, next_token_, served_by_);
    if (is_counted) count_token(experts, RankId{home}, reach_);
  }
}

void ReachCounter::count_token(std::span<const ExpertId> experts, RankId home_rank, Reach& reach) {
  const auto home = static_cast<std::int64_t>(home_rank);
  ++at(reach.num_tokens, home);
  ++num_counted_;
  const auto choices_on_rank = reach.choices_on_rank.row(home);
  const auto tokens_on_rank = reach.tokens_on_rank.row(home);
  const auto tokens_on_node = reach.tokens_on_node.row(home);
  const auto choices_of_expert = reach.choices_of_expert.all();
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if (served_by_[i] == kNoRank) continue;
    const std::size_t rank = index(served_by_[i]);
    ++choices_of_expert[index(experts[i]) * choices_on_rank.size() + rank];
    ++choices_on_rank[rank];
    // Sums instead of branches, which nothing could predict.
    const auto node = std::size_t(node_of_rank_[rank]);
    tokens_on_rank[rank] += std::exchange(last_on_rank_[rank], num_counted_) != num_counted_;
    tokens_on_node[node] += std::exchange(last_on_node_[node], num_counted_) != num_counted_;
  }
}

Reach ReachCounter::finish() const {
  Reach reach = reach_;
  add_to_first_homes(alike_, num_alike_homes_, reach);
  copy_to_alike_homes(num_alike_homes_, reach);
  return reach;
}

namespace {

std::vector<Reach> count_with_homes(const Trace& trace, std::span<const TokenRange> ranges,
                                    const HomesOfPiece& homes_of,
                                    std::span<const Placement> placements,
                                    const TrafficModel& traffic, int num_threads,
                                    Progress& progress) {
  const TraceHeader& header = trace.header();
  C2R_REQUIRE(std::ssize(placements) == header.num_layers(), kInvalidArgument,
              "there are {} placements, but the trace has {} layers", placements.size(),
              header.num_layers());
  const std::vector<TokenRange> whole[] = {{ranges.begin(), ranges.end()}};
  std::vector<Reach> result(placements.size());
  std::atomic<std::int64_t> num_done = 0;
  parallel_for(header.num_layers(), num_threads, [&](std::int64_t layer, int thread) {
    auto counted = count_reach_of_parts(trace, layer, whole, homes_of, at(placements, layer),
                                        traffic, &progress);
    at(result, layer) = std::move(counted[0]);
    const std::int64_t done = ++num_done;
    if (thread == 0) progress.update(done, header.num_layers());
  });
  progress.update(header.num_layers(), header.num_layers());
  return result;
}

}  // namespace

std::vector<Reach> count_reach(const Trace& trace, std::span<const TokenRange> ranges,
                               std::span<const Placement> placements, const TrafficModel& traffic,
                               int num_threads, Progress& progress) {
  if (traffic.homes != Homes::kSequences) {
    const auto uniform = [](const TokenRange&, std::vector<RankId>&) {
      return std::span<const RankId>();
    };
    return count_with_homes(trace, ranges, uniform, placements, traffic, num_threads, progress);
  }
  const SequencesOnRanks sequences(trace.sequence_starts(), trace.num_tokens(),
                                   traffic.cluster.ep_size(), ranges);
  const auto in_turn = [&](const TokenRange& piece, std::vector<RankId>& scratch) {
    sequences.homes_of(piece, scratch);
    return std::span<const RankId>(scratch);
  };
  return count_with_homes(trace, ranges, in_turn, placements, traffic, num_threads, progress);
}

std::vector<Reach> count_reach(const Trace& trace, std::span<const TokenRange> ranges,
                               std::span<const RankId> home_of_token,
                               std::span<const Placement> placements, const TrafficModel& traffic,
                               int num_threads, Progress& progress) {
  C2R_REQUIRE(std::ssize(home_of_token) == trace.num_tokens(), kInvalidArgument,
              "there are {} homes, but {} has {} tokens", home_of_token.size(), trace.path(),
              trace.num_tokens());
  TrafficModel with_homes = traffic;
  with_homes.homes = Homes::kSequences;  // each token has one home
  const auto given = [&](const TokenRange& piece, std::vector<RankId>&) {
    return home_of_token.subspan(std::size_t(piece.begin), std::size_t(piece.end - piece.begin));
  };
  return count_with_homes(trace, ranges, given, placements, with_homes, num_threads, progress);
}

Placement keep_main_slots(const Placement& placement, const Reach& reach) {
  C2R_REQUIRE(reach.choices_of_expert.rows() == placement.num_experts &&
                  reach.choices_of_expert.cols() == placement.ep_size(),
              kInvalidArgument,
              "the counts are of {} experts on {} ranks, but the placement is of {} on {}",
              reach.choices_of_expert.rows(), reach.choices_of_expert.cols(), placement.num_experts,
              placement.ep_size());
  check_slots(placement);
  const auto hosts_of = ranks_of_experts(placement);
  Placement kept = placement;
  for (std::int32_t rank = 0; rank < kept.ep_size(); ++rank) {
    for (ExpertId& slot : kept.slots.row(rank)) {
      if (slot == kNoExpert) continue;
      const auto& hosts = at(hosts_of, slot);
      const auto choices = reach.choices_of_expert.row(static_cast<std::int64_t>(slot));
      const RankId main =
          *std::ranges::max_element(hosts, {}, [&](RankId host) { return at(choices, host); });
      if (main != RankId{rank}) slot = kNoExpert;
    }
  }
  return kept;
}

std::vector<std::int64_t> rank_choices(const Reach& reach) {
  std::vector<std::int64_t> choices(static_cast<std::size_t>(reach.choices_on_rank.cols()));
  for (std::int64_t home = 0; home < reach.choices_on_rank.rows(); ++home) {
    for (std::size_t r = 0; r < choices.size(); ++r) {
      choices[r] += reach.choices_on_rank(home, static_cast<std::int64_t>(r));
    }
  }
  return choices;
}

}  // namespace c2r
