// The figures of a report that are matrices of copies, in cells that are the darker the more.
#pragma once

#include <string>
#include <vector>

#include "c2r/report/page/figures.h"

namespace c2r {

/// @param report as report_data() makes it, here and below
/// @returns "links": the copies from each rank to each, before and under the plan
Figure links_figure(const Json& report);

/// @returns "sequence": the copies that each rank receives of one sequence, layer by layer
Figure sequence_figure(const Json& report);

/// @returns the model's own index of each MoE layer, as text
std::vector<std::string> layer_names_of(const Json& report);

}  // namespace c2r
