// Builds pictures as SVG, with a text for every mark that a pointer or a screen reader comes to.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace c2r {

/// @returns `text` with the characters that mean something in HTML and XML replaced by entities
///          and control characters by U+FFFD, so that it is text wherever it stands, in quotes
///          included
std::string html_text(std::string_view text);

/// A picture that grows mark by mark. Lengths are in pixels from the upper left corner; a `style`
/// is one or more names of CSS classes, which the page or figure_svg() defines.
class Svg {
 public:
  /// @param label what the picture shows, for those who cannot see it
  Svg(double width, double height, std::string_view label);

  /// @param hover what is shown of the rectangle on demand; nothing if it is empty
  void rect(double x, double y, double width, double height, std::string_view style,
            std::string_view hover = {});
  /// @param opacity of the filling, in [0, 1]
  void cell(double x, double y, double width, double height, double opacity,
            std::string_view hover);
  void circle(double x, double y, double radius, std::string_view style, std::string_view hover);
  void line(double x1, double y1, double x2, double y2, std::string_view style);
  void polyline(const std::vector<std::pair<double, double>>& points, std::string_view style);
  /// @param anchor start, middle or end: which end of the text is at x
  void text(double x, double y, std::string_view anchor, std::string_view text,
            std::string_view style = "label");

  /// Puts another picture below this one.
  void add_below(const Svg& other);

  /// @param css rules for a picture that stands alone; none in a page, which has its own
  /// @returns the whole element
  std::string str(std::string_view css = {}) const;

 private:
  double width_, height_;
  std::string label_, body_;
};

}  // namespace c2r
