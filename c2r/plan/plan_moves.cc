// Counts the experts that move between two plans, and compares their cost with what is saved.
#include "c2r/plan/plan_moves.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/plan/plan_check.h"

namespace c2r {
namespace {

// The tokens of a step in the text: what a busy server computes at once.
constexpr double kStepTokens = 8192;

// @returns the experts that the rank with most moves has to load, of all layers
std::int64_t most_moved_to_a_rank(const Plan& running, const Plan& made) {
  std::vector<std::int64_t> moved(std::size_t(made.cluster.ep_size()));
  for (std::size_t layer = 0; layer < made.layers.size(); ++layer) {
    const Placement& before = running.layers[layer].placement;
    const Placement& after = made.layers[layer].placement;
    for (std::int64_t rank = 0; rank < after.ep_size(); ++rank) {
      for (const ExpertId e : after.slots.row(rank)) {
        if (e == kNoExpert) continue;
        at(moved, rank) += std::ranges::count(before.slots.row(rank), e) == 0 ? 1 : 0;
      }
    }
  }
  return std::ranges::max(moved);
}

double sum_of_layers(std::span<const double> column) {
  return mean_over_layers(column) * static_cast<double>(column.size());
}

}  // namespace

PlanMoves moves_of(const Plan& running, const Plan& made, Prediction before,
                   const Prediction& planned, std::int64_t hidden,
                   std::optional<double> expert_bytes) {
  PlanMoves moves{.before = std::move(before)};
  for (std::size_t layer = 0; layer < made.layers.size(); ++layer) {
    const Placement& placement = made.layers[layer].placement;
    moves.num_moved += num_moved_experts(running.layers[layer].placement, placement);
    moves.num_slots += std::ssize(placement.slots.all());
  }
  if (!expert_bytes) return moves;
  moves.is_time = !planned.predicted_layer_time_s.empty() && planned.num_tokens > 0;
  if (moves.is_time) {
    const Cluster& cluster = made.cluster;
    const Link& link = cluster.num_nodes > 1 ? cluster.inter_node : cluster.intra_node;
    moves.move_cost =
        double(most_moved_to_a_rank(running, made)) * *expert_bytes / link.bandwidth_bytes_per_s;
    moves.saved_per_token = (sum_of_layers(moves.before.predicted_layer_time_s) -
                             sum_of_layers(planned.predicted_layer_time_s)) /
                            double(planned.num_tokens);
  } else if (hidden > 0) {
    const CopyFormat format{.hidden = hidden};
    moves.move_cost = double(moves.num_moved) * *expert_bytes;
    moves.saved_per_token =
        double(made.num_layers()) *
        (wire_bytes_per_token(moves.before, format) - wire_bytes_per_token(planned, format));
  }
  if (!moves.move_cost) return moves;
  moves.tokens_to_pay = *moves.move_cost == 0        ? 0
                        : *moves.saved_per_token > 0 ? *moves.move_cost / *moves.saved_per_token
                                                     : std::numeric_limits<double>::infinity();
  return moves;
}

void check_running(const RunningPlan& running, const TraceHeader& header, const Cluster& cluster,
                   std::int32_t slots_per_rank) {
  const auto& [plan, name, max_moves, expert_bytes] = running;
  try {
    check_fits(plan, header, "the trace");
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "{}: {}", name, e.what());
  }
  C2R_REQUIRE(plan.cluster.num_nodes == cluster.num_nodes &&
                  plan.cluster.ranks_per_node == cluster.ranks_per_node,
              kInvalidArgument, "{} is for a cluster of {}x{} ranks, but the new plan is for {}x{}",
              name, plan.cluster.num_nodes, plan.cluster.ranks_per_node, cluster.num_nodes,
              cluster.ranks_per_node);
  C2R_REQUIRE(!expert_bytes || *expert_bytes > 0, kInvalidArgument,
              "an expert has {} bytes to move, but must have more than 0", *expert_bytes);
  if (!max_moves) return;
  C2R_REQUIRE(*max_moves >= 0, kInvalidArgument, "{} experts may move, but must be at least 0",
              *max_moves);
  std::int64_t num_wasted = 0;
  for (const PlanLayer& layer : plan.layers) {
    C2R_REQUIRE(
        layer.placement.slots_per_rank() == slots_per_rank, kInvalidArgument,
        "{} has {} slots on each rank in layer {}, but the new plan has {}: with a bound on "
        "moves both have the same",
        name, layer.placement.slots_per_rank(), layer.layer_index, slots_per_rank);
    num_wasted += std::ssize(layer.wasted_slots);
  }
  C2R_REQUIRE(num_wasted <= *max_moves, kInvalidArgument,
              "{} has {} wasted slots, each of which gets an expert before others move: allow at "
              "least {} moves instead of {}",
              name, num_wasted, num_wasted, *max_moves);
}

std::string moves_text(const PlanMoves& moves, const Prediction& planned) {
  const auto percent = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0; };
  std::string text = fmt::format(
      "{} of {} slots get another expert ({:.1f} %); the running plan: {:.3f} copies a token, {}; "
      "the new one: {:.3f}, {}\n",
      moves.num_moved, moves.num_slots, percent(double(moves.num_moved), double(moves.num_slots)),
      mean_over_layers(moves.before.copies_per_token),
      imbalance_text(layer_imbalance(moves.before.imbalance, std::nullopt)),
      mean_over_layers(planned.copies_per_token),
      imbalance_text(layer_imbalance(planned.imbalance, std::nullopt)));
  if (!moves.tokens_to_pay) return text;
  const auto amount = [&](double value) {
    return moves.is_time ? fmt::format("{:.4g} ms", 1e3 * value)
                         : fmt::format("{:.4g} MB on the wire", value / 1e6);
  };
  const double saved = kStepTokens * *moves.saved_per_token;
  if (saved <= 0) {
    return text +
           fmt::format("loading these experts takes {} and never pays\n", amount(*moves.move_cost));
  }
  return text +
         fmt::format(
             "loading these experts takes {}; a step of {:.0f} tokens saves {}: the moves pay "
             "after {:.4g} steps\n",
             amount(*moves.move_cost), kStepTokens, amount(saved),
             *moves.tokens_to_pay / kStepTokens);
}

}  // namespace c2r
