// The order of placements from better to worse, for every goal and every search.
#pragma once

#include <compare>

namespace c2r {

/// How good a placement is: first by how far it is beyond the objective's bounds, then by the value
/// that is minimized. The better placement is the lesser: `a < b`.
struct Quality {
  double violation = 0;  // 0 within the bounds, else the excess in the unit of the search's energy
  double value = 0;      // copies, imbalance or seconds, by the goal; or a search's energy

  // clang-tidy 14 takes the 0 of the generated comparison for a pointer.
  auto operator<=>(const Quality&) const = default;  // NOLINT(modernize-use-nullptr)
};

}  // namespace c2r
