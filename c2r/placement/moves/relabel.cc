// Relabels ranks and slots by assignment.
#include "c2r/placement/moves/relabel.h"

#include <algorithm>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/moves/assignment.h"

namespace c2r {
namespace {

void check_replaces(const Placement& from, const Placement& to) {
  C2R_REQUIRE(from.num_experts == to.num_experts && from.ep_size() == to.ep_size(),
              kInvalidArgument,
              "a placement of {} experts on {} ranks cannot replace one of {} experts on {} ranks",
              to.num_experts, to.ep_size(), from.num_experts, from.ep_size());
}

// @returns whether each rank holds each expert. [ep_size, num_experts]
Matrix<std::uint8_t> held_experts(const Placement& placement) {
  Matrix<std::uint8_t> holds(placement.ep_size(), placement.num_experts);
  for (std::int64_t rank = 0; rank < holds.rows(); ++rank) {
    for (const ExpertId e : placement.slots.row(rank)) {
      if (e != kNoExpert) holds(rank, static_cast<std::int64_t>(e)) = 1;
    }
  }
  return holds;
}

// Puts the experts that stay into their slots of before, and the others into the slots left.
void keep_slots(std::span<const ExpertId> before, std::span<ExpertId> slots) {
  std::vector<ExpertId> others(slots.begin(), slots.end());
  const auto stays = [&](std::size_t slot) {
    return slot < before.size() && before[slot] != kNoExpert &&
           std::ranges::count(others, before[slot]) > 0;
  };
  std::vector<bool> is_kept(slots.size());
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (!stays(slot)) continue;
    is_kept[slot] = true;
    slots[slot] = before[slot];
  }
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (is_kept[slot]) others.erase(std::ranges::find(others, slots[slot]));
  }
  auto next = others.begin();
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (!is_kept[slot]) slots[slot] = *next++;
  }
}

}  // namespace

std::vector<RankId> best_labels(MatrixView<const double> gain, const Cluster& cluster) {
  const std::int32_t ep_size = cluster.ep_size(), width = cluster.ranks_per_node;
  C2R_REQUIRE(gain.rows() == ep_size && gain.cols() == ep_size, kInvalidArgument,
              "there are {} x {} gains for labels of {} ranks", gain.rows(), gain.cols(), ep_size);
  // Of node a renamed to node b: the labels inside, and what they gain.
  Matrix<double> node_gain(cluster.num_nodes, cluster.num_nodes);
  std::vector<std::vector<std::int32_t>> inside;
  Matrix<double> block(width, width);
  for (std::int64_t a = 0; a < cluster.num_nodes; ++a) {
    for (std::int64_t b = 0; b < cluster.num_nodes; ++b) {
      for (std::int64_t r = 0; r < width; ++r) {
        std::ranges::copy(
            gain.row(a * width + r).subspan(std::size_t(b * width), std::size_t(width)),
            block.row(r).begin());
      }
      inside.push_back(best_assignment(block));
      for (std::int64_t r = 0; r < width; ++r) node_gain(a, b) += block(r, at(inside.back(), r));
    }
  }
  const auto node_of = best_assignment(node_gain);
  std::vector<RankId> label_of;
  for (std::int32_t rank = 0; rank < ep_size; ++rank) {
    const std::int32_t from = rank / width, to = at(node_of, from);
    const auto& labels = at(inside, from * cluster.num_nodes + to);
    label_of.push_back(RankId{to * width + at(labels, rank % width)});
  }
  return label_of;
}

Placement relabelled(const Placement& placement, std::span<const RankId> label_of) {
  std::vector<bool> is_taken(std::size_t(placement.ep_size()));
  C2R_REQUIRE(label_of.size() == is_taken.size(), kInvalidArgument,
              "there are {} labels for {} ranks", label_of.size(), is_taken.size());
  Placement result = placement;
  for (std::size_t rank = 0; rank < label_of.size(); ++rank) {
    const std::size_t label = index(label_of[rank]);
    C2R_REQUIRE(label < is_taken.size() && !is_taken[label], kInvalidArgument,
                "rank {} gets the label {}, which is no rank or is given twice", rank, label);
    is_taken[label] = true;
    std::ranges::copy(placement.slots.row(std::int64_t(rank)),
                      result.slots.row(std::int64_t(label)).begin());
  }
  return result;
}

std::int64_t num_moved_experts(const Placement& from, const Placement& to) {
  check_replaces(from, to);
  const auto before = held_experts(from), after = held_experts(to);
  return std::transform_reduce(
      after.all().begin(), after.all().end(), before.all().begin(), std::int64_t{0}, std::plus<>(),
      [](std::uint8_t is_held, std::uint8_t was_held) { return is_held && !was_held ? 1 : 0; });
}

Placement with_fewest_moves(const Placement& from, const Placement& to, const Cluster& cluster) {
  check_replaces(from, to);
  const auto before = held_experts(from), after = held_experts(to);
  Matrix<double> stay(to.ep_size(), to.ep_size());
  for (std::int64_t rank = 0; rank < stay.rows(); ++rank) {
    for (std::int64_t label = 0; label < stay.cols(); ++label) {
      const auto held = before.row(label);
      stay(rank, label) = std::inner_product(held.begin(), held.end(), after.row(rank).begin(), 0);
    }
  }
  Placement result = relabelled(to, best_labels(stay, cluster));
  for (std::int64_t rank = 0; rank < stay.rows(); ++rank) {
    keep_slots(from.slots.row(rank), result.slots.row(rank));
  }
  return result;
}

std::vector<std::int32_t> differing_slots(const Placement& placement, const Placement& other,
                                          const Cluster& cluster) {
  C2R_REQUIRE(placement.slots_per_rank() == other.slots_per_rank(), kInvalidArgument,
              "placements of {} and {} slots a rank cannot be compared slot by slot",
              placement.slots_per_rank(), other.slots_per_rank());
  const Placement alike = with_fewest_moves(placement, other, cluster);
  std::vector<std::int32_t> slots;
  for (std::size_t slot = 0; slot < placement.slots.all().size(); ++slot) {
    if (placement.slots.all()[slot] != alike.slots.all()[slot]) {
      slots.push_back(static_cast<std::int32_t>(slot));
    }
  }
  return slots;
}

}  // namespace c2r
