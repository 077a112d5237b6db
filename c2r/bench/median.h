// The median of timings.
#pragma once

#include <vector>

namespace c2r {

/// @returns of an odd number of values the middle one, else the mean of the two in the middle; 0 of
///          none
double median(std::vector<double> values);

}  // namespace c2r
