// The table of baselines, the check of their problem, and the baselines that are a few lines long.
#include "c2r/placement/baselines/baselines.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/placement/baselines/baselines_internal.h"
#include "c2r/placement/baselines/spectral.h"

namespace c2r {
namespace {

std::string always(const BaselineProblem&) {
  return {};
}

std::string needs_pairs(const BaselineProblem& problem) {
  return problem.has_pairs ? "" : "the statistics hold loads only, not which experts work together";
}

std::string needs_pairs_and_no_replicas(const BaselineProblem& problem) {
  if (problem.num_slots() != problem.num_experts()) {
    return fmt::format("it makes no replicas, but there are {} slots for {} experts",
                       problem.num_slots(), problem.num_experts());
  }
  return needs_pairs(problem);
}

std::string needs_few_partitions(const BaselineProblem& problem) {
  if (std::string reason = needs_pairs_and_no_replicas(problem); !reason.empty()) return reason;
  const double n = problem.num_experts(), groups = problem.cluster.ep_size();
  const double log_count =
      std::lgamma(n + 1) - groups * std::lgamma(n / groups + 1) - std::lgamma(groups + 1);
  if (log_count <= std::log(kMaxPartitions)) return {};
  return fmt::format("{} experts have about 1e{:.0f} partitions over {} ranks; it tries up to 1e7",
                     n, log_count / std::log(10.0), groups);
}

std::string needs_eplb_to_divide(const BaselineProblem& problem) {
  if (problem.num_groups >= 1 && problem.num_experts() % problem.num_groups == 0) return {};
  return fmt::format("{} experts are not divided by {} groups", problem.num_experts(),
                     problem.num_groups);
}

bool holds(std::span<const ExpertId> rank, ExpertId expert) {
  return std::ranges::find(rank, expert) != rank.end();
}

// Gives the experts of `order` to the ranks in turn, each once; then each redundant slot takes the
// first expert of `next` that the rank lacks.
template <class Next>
Placement place_in_turn(const BaselineProblem& problem, std::span<const std::int32_t> order,
                        Next next) {
  const std::int32_t ep_size = problem.cluster.ep_size();
  Placement placement{.num_experts = problem.num_experts(),
                      .slots = {ep_size, problem.slots_per_rank}};
  for (std::int32_t slot = 0; slot < problem.num_slots(); ++slot) {
    const std::int64_t rank = slot % ep_size, position = slot / ep_size;
    const auto held = placement.slots.row(rank).first(static_cast<std::size_t>(position));
    const bool is_redundant = slot >= problem.num_experts();
    ExpertId expert{is_redundant ? next() : at(order, slot)};
    while (holds(held, expert)) expert = ExpertId{next()};
    placement.slots(rank, position) = expert;
  }
  return placement;
}

Placement place_contiguous(const BaselineProblem& problem) {
  Placement placement{.num_experts = problem.num_experts(),
                      .slots = {problem.cluster.ep_size(), problem.slots_per_rank}};
  std::int32_t next = 0;
  for (ExpertId& slot : placement.slots.all()) slot = ExpertId{next++ % problem.num_experts()};
  return placement;
}

Placement place_round_robin(const BaselineProblem& problem) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(problem.num_experts()));
  std::iota(order.begin(), order.end(), 0);
  std::int32_t cursor = 0;
  return place_in_turn(problem, order, [&] { return cursor++ % problem.num_experts(); });
}

Placement place_random(const BaselineProblem& problem) {
  std::mt19937_64 rng(problem.seed);
  std::vector<std::int32_t> order(static_cast<std::size_t>(problem.num_experts()));
  std::iota(order.begin(), order.end(), 0);
  shuffle(std::span(order), rng);
  return place_in_turn(problem, order,
                       [&] { return static_cast<std::int32_t>(uniform_below(order.size(), rng)); });
}

Placement place_affinity(const BaselineProblem& problem) {
  const std::int32_t ep_size = problem.cluster.ep_size(), size = problem.slots_per_rank;
  const auto group_of =
      group_by_affinity(problem.counts, {.num_groups = ep_size, .min = size, .max = size});
  std::vector<std::vector<std::int32_t>> experts_of_rank(static_cast<std::size_t>(ep_size));
  for (std::int32_t e = 0; e < problem.num_experts(); ++e) {
    at(experts_of_rank, at(group_of, e)).push_back(e);
  }
  return placement_of_ranks(problem.num_experts(), experts_of_rank);
}

constexpr internal::Baseline kBaselines[] = {
    {"contiguous", always, place_contiguous},
    {"round-robin", always, place_round_robin},
    {"random", always, place_random},
    {"eplb", needs_eplb_to_divide, internal::place_eplb},
    {"balance", needs_eplb_to_divide, internal::place_balance, /*may_repeat=*/true},
    {"affinity", needs_pairs_and_no_replicas, place_affinity},
    {"grace", needs_pairs, internal::place_grace},
    {"exhaustive", needs_few_partitions, internal::place_exhaustive},
};

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kBaselines)> names;
  std::ranges::transform(kBaselines, names.begin(), &internal::Baseline::name);
  return names;
}();

// How many slots of how many layers have something in common.
struct SlotsOfLayers {
  std::int64_t num_slots = 0, num_layers = 0;

  void add(std::int64_t num_slots_of_layer) {
    num_slots += num_slots_of_layer;
    num_layers += num_slots_of_layer > 0 ? 1 : 0;
  }
};

void check_problem(const BaselineProblem& problem) {
  check_cluster(problem.cluster);
  C2R_REQUIRE(problem.counts.rows() >= 1 && problem.counts.rows() == problem.counts.cols(),
              kInvalidArgument, "the pair counts are {} x {}, but must be square",
              problem.counts.rows(), problem.counts.cols());
  C2R_REQUIRE(problem.slots_per_rank >= 1 && problem.slots_per_rank <= problem.num_experts() &&
                  problem.num_slots() >= problem.num_experts(),
              kInvalidArgument,
              "{} experts cannot be placed on {} ranks of {} slots: every expert needs a slot, and "
              "a rank holds an expert once",
              problem.num_experts(), problem.cluster.ep_size(), problem.slots_per_rank);
}

}  // namespace

std::span<const internal::Baseline> internal::baselines() {
  return kBaselines;
}

std::span<const std::string_view> baseline_names() {
  return kNames;
}

Placement place_baseline(std::string_view name, const BaselineProblem& problem) {
  const auto found = std::ranges::find(kBaselines, name, &internal::Baseline::name);
  C2R_REQUIRE(found != std::end(kBaselines), kInvalidArgument, "a baseline is {}; not '{}'",
              fmt::join(kNames, ", "), name);
  check_problem(problem);
  const std::string reason = found->why_not(problem);
  C2R_REQUIRE(reason.empty(), kUnsupported, "{} cannot place this layer: {}", name, reason);
  Placement placement = found->place(problem);
  if (!found->may_repeat) {
    check_placement(placement);
    return placement;
  }
  Placement without_repeats = placement;
  const std::int64_t num_repeats = empty_repeats(without_repeats.slots);
  C2R_ASSERT(num_repeats == std::ranges::count(without_repeats.slots.all(), kNoExpert));
  check_slots(without_repeats);
  return placement;
}

std::vector<Placement> place_layers(std::string_view name,
                                    std::span<const CollaborationMatrix> counts,
                                    BaselineProblem problem, Progress& progress,
                                    std::vector<std::string>* notes) {
  std::vector<Placement> placements;
  SlotsOfLayers repaired, repeated;
  for (const CollaborationMatrix& layer : counts) {
    problem.counts = layer;
    placements.push_back(place_baseline(name, problem));
    if (notes != nullptr) {
      Matrix<ExpertId> slots = placements.back().slots;
      repeated.add(empty_repeats(slots));
      if (name == "eplb") repaired.add(internal::repaired_eplb(problem).num_repaired);
    }
    progress.update(std::ssize(placements), std::ssize(counts));
  }
  if (notes == nullptr) return placements;
  if (repaired.num_slots > 0) {
    notes->push_back(
        fmt::format("eplb: repaired {} slots in {} of {} layers, in which EPLB puts an expert on "
                    "its rank for the second time",
                    repaired.num_slots, repaired.num_layers, counts.size()));
  }
  if (repeated.num_slots > 0) {
    notes->push_back(fmt::format(
        "{}: {} slots in {} of {} layers hold an expert that another slot of their rank "
        "holds, because every other expert that was tried makes ranks less even",
        name, repeated.num_slots, repeated.num_layers, counts.size()));
  }
  return placements;
}

}  // namespace c2r
