// The figures of a report: each a picture, and the table of the numbers in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/json.h"
#include "c2r/report/page/svg.h"

namespace c2r {

struct Figure {
  std::string name;     // "waterfall"; also the element's id in the page
  std::string title;    // one line
  std::string caption;  // what is shown, and what to look for
  std::vector<Svg> pictures;
  std::vector<std::vector<std::string>> table;  // the first row is the header
};

/// The figures that the data allow, in the order of the page: waterfall, layers, loads, drift,
/// front (with a comparison), constraint (with scores or constrained traffic), measured (with a
/// benchmark), links and sequence (both of at most 64 ranks).
/// @param report as report_data() makes it
std::vector<Figure> report_figures(const Json& report);

/// @returns a figure alone, as a picture for other documents, black on white; its pictures stand
///          below each other
/// @throws Error(kInvalidArgument), listing the names, if the data do not allow such a figure
std::string figure_svg(const Json& report, std::string_view name);

}  // namespace c2r
