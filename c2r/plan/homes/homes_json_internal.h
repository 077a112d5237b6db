// The homes of a plan as JSON.
#pragma once

#include <cstdint>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/plan/plan.h"

namespace c2r::internal {

Json homes_to_json(const PlanHomes& homes);

/// @param place where the JSON is from, for messages
/// @throws Error(kInvalidFile), naming what is wrong; check_plan() checks what is left
PlanHomes homes_from_json(const Json& json, std::int32_t num_experts, std::string_view place);

}  // namespace c2r::internal
