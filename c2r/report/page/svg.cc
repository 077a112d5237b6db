// Writes SVG elements; texts are escaped here and nowhere else.
#include "c2r/report/page/svg.h"

#include <fmt/format.h>

#include <algorithm>

namespace c2r {
namespace {

// A narrow page scrolls a picture sideways rather than make its text of 13 pixels smaller than 9.
constexpr double kLeastScale = 0.7;

std::string hover_element(std::string_view hover) {
  return hover.empty() ? "" : fmt::format("<title>{}</title>", html_text(hover));
}

}  // namespace

std::string html_text(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const bool is_control = static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t';
        if (is_control || c == 0x7F) {
          out += "\xEF\xBF\xBD";
        } else {
          out += c;
        }
      }
    }
  }
  return out;
}

Svg::Svg(double width, double height, std::string_view label)
    : width_(width), height_(height), label_(label) {}

void Svg::rect(double x, double y, double width, double height, std::string_view style,
               std::string_view hover) {
  body_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\">{}</rect>\n",
      x, y, width, height, html_text(style), hover_element(hover));
}

void Svg::cell(double x, double y, double width, double height, double opacity,
               std::string_view hover) {
  body_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"cell\" "
      "fill-opacity=\"{:.3f}\">{}</rect>\n",
      x, y, width, height, opacity, hover_element(hover));
}

void Svg::circle(double x, double y, double radius, std::string_view style,
                 std::string_view hover) {
  body_ +=
      fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" class=\"{}\">{}</circle>\n", x,
                  y, radius, html_text(style), hover_element(hover));
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view style) {
  body_ +=
      fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n",
                  x1, y1, x2, y2, html_text(style));
}

void Svg::polyline(const std::vector<std::pair<double, double>>& points, std::string_view style) {
  body_ += "<polyline points=\"";
  for (const auto& [x, y] : points) body_ += fmt::format("{:.1f},{:.1f} ", x, y);
  body_ += fmt::format("\" class=\"{}\"/>\n", html_text(style));
}

void Svg::text(double x, double y, std::string_view anchor, std::string_view text,
               std::string_view style) {
  body_ +=
      fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", x,
                  y, html_text(anchor), html_text(style), html_text(text));
}

void Svg::add_below(const Svg& other) {
  body_ += fmt::format("<g transform=\"translate(0 {:.1f})\">\n{}</g>\n", height_, other.body_);
  label_ += "; " + other.label_;
  width_ = std::max(width_, other.width_);
  height_ += other.height_;
}

std::string Svg::str(std::string_view css) const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:g} {:g}\" width=\"{:g}\" "
      "{}role=\"img\" aria-label=\"{}\">{}\n{}</svg>\n",
      width_, height_, width_,
      css.empty() ? fmt::format("style=\"min-width:{:.0f}px\" ", kLeastScale * width_) : "",
      html_text(label_),
      css.empty() ? ""
                  : fmt::format("<style>{}</style>\n<rect width=\"100%\" height=\"100%\" "
                                "fill=\"#fff\"/>",
                                css),
      body_);
}

}  // namespace c2r
