// A picture with axes: places data in a rectangle of pixels.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "c2r/report/page/svg.h"

namespace c2r {

struct Margins {
  double left = 56, right = 16, top = 22, bottom = 26;
};

/// @returns the margin in which the longest of `names` has place, with the texts of pages
double margin_for(std::span<const std::string> names);

/// An empty picture, the rectangle within its margins, and the scales that lead into it.
class Axes {
 public:
  Axes(double width, double height, std::string_view label, const Margins& margins);

  /// The values at the left and right, or lower and upper, ends. They differ.
  void set_x(double least, double most);
  void set_y(double least, double most);

  /// Where a value is, in pixels.
  double x(double value) const;
  double y(double value) const;
  double right() const { return width_ - margins_.right; }

  /// Lines and numbers at some five round values, and what they count.
  void draw_y_grid(std::string_view what);
  void draw_x_labels(std::string_view what);

  Svg& svg() { return svg_; }

 private:
  double width_, height_;
  Margins margins_;
  double x_least_ = 0, x_most_ = 1, y_least_ = 0, y_most_ = 1;
  Svg svg_;
};

}  // namespace c2r
