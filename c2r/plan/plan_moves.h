// What it takes to change from the plan that runs to a new one, and after how many tokens that
// pays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {

/// The plan that runs, from which a new one is made.
struct RunningPlan {
  Plan plan;
  std::string name;                       // for messages and provenance
  std::optional<std::int64_t> max_moves;  // the most experts that may move, of all layers together
  std::optional<double> expert_bytes;     // to be loaded for one expert that moves
};

struct PlanMoves {
  std::int64_t num_moved = 0;  // experts that ranks have to load, of all layers together
  std::int64_t num_slots = 0;  // of all layers and ranks
  Prediction before;           // of the running plan on the reported tokens
  // Where the bytes of an expert are known, and those of a copy or times: the cost of the moves,
  // what a token saves in all layers, both in bytes on the wire or both in seconds, and their
  // quotient, infinite if nothing is saved.
  bool is_time = false;
  std::optional<double> move_cost, saved_per_token, tokens_to_pay;
};

/// @param planned the prediction of the new plan on the tokens of `before`
/// @param hidden values of a token, sent in bf16 there and back; 0 = unknown
/// @param expert_bytes of an expert that moves, over the link between two ranks; of several nodes,
///        between nodes
/// @returns moves and, if possible, when they pay: in predicted time where both predictions have
///          times, when the rank that loads most experts has loaded them; else in bytes on the wire
/// @throws Error(kInvalidArgument) as num_moved_experts()
PlanMoves moves_of(const Plan& running, const Plan& made, Prediction before,
                   const Prediction& planned, std::int64_t hidden,
                   std::optional<double> expert_bytes);

/// Refuses a running plan of another model, cluster or, with max_moves, other slots or more wasted
/// slots than moves.
/// @throws Error(kInvalidArgument), naming the plan and the values
void check_running(const RunningPlan& running, const TraceHeader& header, const Cluster& cluster,
                   std::int32_t slots_per_rank);

/// @returns one line, or two: moves, copies and imbalance before, and after how many tokens the
///          moves pay
std::string moves_text(const PlanMoves& moves, const Prediction& planned);

}  // namespace c2r
