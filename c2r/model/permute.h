// Rewriting a checkpoint so that its experts stand in the order of a placement.
//
// An engine that gives rank r the r-th part of the experts, in order, then has the plan's
// placement without knowing of it: Megatron-Core, MegaBlocks, vLLM without EPLB.
#pragma once

#include <filesystem>
#include <string_view>

#include "c2r/core/progress.h"
#include "c2r/model/model.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// Writes the model to the new folder `output`, with expert `e` of the plan's slot `s` (counted
/// over all ranks) as expert `s`: tensors of experts change names, rows of the gate, sizes and
/// collaborator lists in config.json change places, everything else is copied. Lists of the plan,
/// if it has some, become the config's. The new model computes the same as `model` with that plan;
/// sums over a token's experts keep their order.
///
/// @param place names the plan in messages
/// @param progress counts bytes of tensors
/// @throws Error(kInvalidFile) if the plan is for another model, or if a layer has replicas;
///         Error(kInvalidArgument) if `output` exists. Nothing is left at `output` then.
/// Cost: reads and writes every byte once; memory does not grow with the model.
void permute_checkpoint(const Model& model, const Plan& plan, std::string_view place,
                        const std::filesystem::path& output, Progress& progress);

}  // namespace c2r
