// Scales, grid lines at round values, and their labels.
#include "c2r/report/page/axes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "c2r/report/wrap.h"

namespace c2r {
namespace {

// Some five multiples of 1, 2 or 5 times a power of ten in [least, most].
std::vector<double> round_values(double least, double most) {
  const double rough = (most - least) / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double ratio = rough / power;
  const double step = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
  std::vector<double> values;
  const auto first = static_cast<std::int64_t>(std::ceil(least / step - 1e-9));
  const auto last = static_cast<std::int64_t>(std::floor(most / step + 1e-9));
  for (std::int64_t n = first; n <= last; ++n) values.push_back(static_cast<double>(n) * step);
  return values;
}

}  // namespace

double margin_for(std::span<const std::string> names) {
  std::size_t most = 0;
  for (const std::string& name : names) most = std::max(most, width_of(name));
  return 20 + 7.5 * static_cast<double>(most);  // characters of 13 pixels are some 7 wide
}

Axes::Axes(double width, double height, std::string_view label, const Margins& margins)
    : width_(width), height_(height), margins_(margins), svg_(width, height, label) {}

void Axes::set_x(double least, double most) {
  x_least_ = least;
  x_most_ = most;
}

void Axes::set_y(double least, double most) {
  y_least_ = least;
  y_most_ = most;
}

double Axes::x(double value) const {
  const double share = (value - x_least_) / (x_most_ - x_least_);
  return margins_.left + share * (width_ - margins_.left - margins_.right);
}

double Axes::y(double value) const {
  const double share = (value - y_least_) / (y_most_ - y_least_);
  return height_ - margins_.bottom - share * (height_ - margins_.top - margins_.bottom);
}

void Axes::draw_y_grid(std::string_view what) {
  for (const double value : round_values(y_least_, y_most_)) {
    svg_.line(margins_.left, y(value), right(), y(value), "grid");
    svg_.text(margins_.left - 6, y(value) + 4, "end", fmt::format("{:g}", value));
  }
  svg_.text(margins_.left, 14, "start", what);
}

void Axes::draw_x_labels(std::string_view what) {
  const double bottom = height_ - margins_.bottom;
  for (const double value : round_values(x_least_, x_most_)) {
    svg_.text(x(value), bottom + 16, "middle", fmt::format("{:g}", value));
  }
  svg_.text(right(), bottom + 32, "end", what);
}

}  // namespace c2r
