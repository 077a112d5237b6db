// Rewrites a checkpoint with its experts in the order of a placement.
//
// Engines that give rank r the r-th contiguous part of the experts then have the placement of the
// plan without support for plans: Megatron-Core, MegaBlocks, vLLM without EPLB.
#pragma once

#include <filesystem>
#include <string_view>

#include "c2r/core/progress.h"
#include "c2r/model/model.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// Writes the model to the new folder `output`. The expert in slot `s` of the plan, counted over
/// all ranks, becomes expert `s`: tensors of experts get new names; rows of the gate, and sizes and
/// collaborator lists in config.json, get a new order; everything else is copied. If the plan has
/// collaborator lists, they replace those of the config. The new model computes the same as `model`
/// with that plan, and sums over a token's experts keep their order.
///
/// @param place the file of the plan, for messages
/// @param progress counts bytes of tensors
/// @throws Error(kInvalidFile) if the plan is for another model, or if a layer has replicas;
///         Error(kInvalidArgument) if `output` exists. After an error there is nothing new at
///         `output`.
/// Cost: reads and writes every byte once; memory does not grow with the model.
void permute_checkpoint(const Model& model, const Plan& plan, std::string_view place,
                        const std::filesystem::path& output, Progress& progress);

}  // namespace c2r
