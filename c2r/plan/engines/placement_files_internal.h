// Functions that the readers and writers of several engines' placement files share.
//
// The readers throw Error(kInvalidFile); `place` says where the bytes are from, for messages.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/json.h"
#include "c2r/plan/engines/engine.h"

namespace c2r::placement_files {

/// @param slots the experts of all ranks' slots, in rank order
/// @param layer names the layer in messages
/// @returns the placement as it is in the file: a rank may hold an expert several times
Placement placement_of_slots(std::span<const std::int64_t> slots, const MapShape& shape,
                             std::string_view layer, std::string_view place);

/// The same from a JSON array [num_slots].
Placement placement_of_row(const Json& row, const MapShape& shape, std::string_view layer,
                           std::string_view place);

/// From a JSON array [num_layers][num_slots], called `what` in messages.
std::vector<Placement> placements_of_rows(const Json& json, const MapShape& shape,
                                          std::string_view what, std::string_view place);

/// From a JSON object {KEY OF LAYER: [num_slots]} with exactly the given keys, in any order.
std::vector<Placement> placements_by_key(const Json& object, const std::vector<std::string>& keys,
                                         const MapShape& shape, std::string_view place);

/// The values of a JSON array of integers of at least -1.
std::vector<std::int64_t> integers(const Json& json, std::string_view what, std::string_view place);

/// The keys of MoE layers that are counted from 0, and of those with the model's own index.
std::vector<std::string> ordinals(const MapShape& shape);
std::vector<std::string> model_indices(const MapShape& shape);

/// "row 3"
std::string row_name(std::size_t row);

void require_slots(const Placement& placement, std::int64_t num_slots, std::string_view place);

/// @returns the slots of a layer as the engine has them: wasted ones hold their experts. [ep_size,
///          slots_per_rank]
Matrix<ExpertId> engine_slots(const PlanLayer& layer);

/// [num_slots] of one layer, and [num_layers][num_slots].
Json slots_to_json(const PlanLayer& layer);
Json all_slots_to_json(const Plan& plan);

/// @returns the slots of a layer of a plan whose layers have the same number of slots
std::int64_t num_slots_of_each_layer(const Plan& plan);

/// @returns the same without one slot for each expert
std::int64_t num_redundant_slots(const Plan& plan);

/// @returns the slots of each expert, padded with -1 to `most_replicas`, and their number
std::pair<Json, Json> inverse_of(const PlanLayer& layer, std::size_t most_replicas);

}  // namespace c2r::placement_files
