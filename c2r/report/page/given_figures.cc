// Draws bars of what was measured of constrained models, and of the parts of a layer's time.
#include "c2r/report/page/given_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "c2r/report/page/axes.h"
#include "c2r/report/page/report_data.h"

namespace c2r {
namespace {

struct Bar {
  std::string name;
  double value = 0;
};

constexpr double kBarHeight = 24, kBarStep = 34;

Axes axes_of_bars(std::span<const std::string> names, double most, std::string_view label) {
  Axes axes(640, kBarStep * static_cast<double>(names.size()) + 42, label,
            {.left = margin_for(names), .right = 150, .top = 24, .bottom = 24});
  axes.set_x(0, std::max(most, 1e-9));
  axes.svg().text(0, 14, "start", label);
  return axes;
}

// Bars below each other, each with its value and its difference from the first one.
Svg bars_picture(std::span<const Bar> bars, const std::string& what) {
  double most = 0;
  std::vector<std::string> names;
  for (const Bar& bar : bars) {
    most = std::max(most, bar.value);
    names.push_back(bar.name);
  }
  Axes axes = axes_of_bars(names, most, what);
  double y = 24;
  for (const Bar& bar : bars) {
    std::string text = fmt::format("{:.3f}", bar.value);
    axes.svg().text(axes.x(0) - 8, y + 17, "end", bar.name);
    axes.svg().rect(axes.x(0), y, axes.x(bar.value) - axes.x(0), kBarHeight,
                    &bar == &bars.front() ? "before" : "after",
                    fmt::format("{}: {} {}", bar.name, text, what));
    if (&bar != &bars.front() && bars.front().value > 0) {
      text += fmt::format("  ({:+.1f} %)", 100 * (bar.value / bars.front().value - 1));
    }
    axes.svg().text(axes.x(bar.value) + 6, y + 17, "start", text);
    y += kBarStep;
  }
  return axes.svg();
}

std::string constraint_name(const Json& row) {
  const Json& top_t = row.at("top_t");
  return top_t.is_null() ? "no constraint" : fmt::format("T = {}", top_t.get<std::int64_t>());
}

// A row of times: dispatch, experts and combine, in seconds.
struct TimeRow {
  std::string name;
  std::array<double, 3> parts = {};
  double total = 0;  // as measured: parts may overlap
};

constexpr std::array<const char*, 3> kPartNames = {"dispatch", "experts", "combine"};

TimeRow predicted_row(const std::string& name, const Json& step) {
  return {.name = name,
          .parts = {mean_of(step, "predicted_dispatch_s"), mean_of(step, "predicted_experts_s"),
                    mean_of(step, "predicted_combine_s")},
          .total = mean_of(step, "predicted_layer_time_s")};
}

std::vector<TimeRow> time_rows(const Json& report) {
  std::vector<TimeRow> rows;
  for (const Json& variant : report.at("measured").at("variants")) {
    rows.push_back(
        {.name = variant.at("name").get<std::string>(),
         .parts = {variant.at("dispatch_s").get<double>(), variant.at("experts_s").get<double>(),
                   variant.at("combine_s").get<double>()},
         .total = variant.at("median_s").get<double>()});
  }
  if (!step_before(report).at("predicted_layer_time_s").empty()) {
    rows.push_back(predicted_row("predicted, before", step_before(report)));
    rows.push_back(predicted_row("predicted, plan", step_after(report)));
  }
  return rows;
}

Svg times_picture(std::span<const TimeRow> rows) {
  double most = 0;
  std::vector<std::string> names;
  for (const TimeRow& row : rows) {
    most = std::max(most, row.parts[0] + row.parts[1] + row.parts[2]);
    names.push_back(row.name);
  }
  Axes axes = axes_of_bars(names, most, "ms of a layer");
  constexpr std::array<const char*, 3> kStyles = {"after", "before", "third"};
  for (std::size_t part = 0; part < kPartNames.size(); ++part) {
    const double x = 330 + 100 * static_cast<double>(part);
    axes.svg().rect(x, 4, 12, 12, kStyles[part]);
    axes.svg().text(x + 17, 14, "start", kPartNames[part]);
  }
  double y = 24;
  for (const TimeRow& row : rows) {
    axes.svg().text(axes.x(0) - 8, y + 17, "end", row.name);
    double begin = 0;
    for (std::size_t part = 0; part < row.parts.size(); ++part) {
      const double end = begin + row.parts[part];
      axes.svg().rect(
          axes.x(begin), y, axes.x(end) - axes.x(begin), kBarHeight, kStyles[part],
          fmt::format("{}: {} {:.4g} ms", row.name, kPartNames[part], 1e3 * row.parts[part]));
      begin = end;
    }
    axes.svg().text(axes.x(begin) + 6, y + 17, "start", fmt::format("{:.4g}", 1e3 * row.total));
    y += kBarStep;
  }
  return axes.svg();
}

std::string measured_caption(const Json& report) {
  const Json& measured = report.at("measured");
  std::string text = fmt::format(
      "A layer of {}, hidden {}, with {} tokens on each of {} ranks, as c2r bench {} measured it "
      "on "
      "its machine; the parts are means over ranks, and the number is the time until the slowest "
      "rank was done.",
      measured.at("problem").get<std::string>(), measured.at("hidden").get<std::int64_t>(),
      measured.at("tokens_per_rank").get<std::int64_t>(),
      measured.at("ep_size").get<std::int64_t>(), measured.at("what").get<std::string>());
  if (!step_before(report).at("predicted_layer_time_s").empty()) {
    text +=
        " The predicted times are of the hidden size, the batch and the hardware of this report: "
        "where these are others, compare the shares of the parts and not the times.";
  }
  return text;
}

}  // namespace

Figure constraint_figure(const Json& report) {
  Figure figure{.name = "constraint",
                .title = "What the constraint costs and saves",
                .caption =
                    "Copies on the wire under the plan, as recorded with routing among the first T "
                    "collaborators of the best expert, and the perplexity of the same models.",
                .pictures = {},
                .table = {{"T", "copies on the wire", "imbalance", "perplexity", "scored tokens"}}};
  std::vector<Bar> copies, perplexities;
  for (const Json& row : report.at("constraint")) {
    const std::string name = constraint_name(row);
    std::vector<std::string> cells = {name, "-", "-", "-", "-"};
    if (const Json* const traffic = json_find(row, "traffic")) {
      copies.push_back({name, traffic->at("wire_copies_per_token").get<double>()});
      cells[1] = fmt::format("{:.3f}", copies.back().value);
      cells[2] = fmt::format("{:.3f}", traffic->at("imbalance").get<double>());
    }
    if (const Json* const score = json_find(row, "score")) {
      perplexities.push_back({name, score->at("perplexity").get<double>()});
      cells[3] = fmt::format("{:.3f}", perplexities.back().value);
      cells[4] = std::to_string(score->at("num_tokens").get<std::int64_t>());
    }
    figure.table.push_back(std::move(cells));
  }
  figure.pictures.push_back(bars_picture(copies, "copies on the wire"));
  if (!perplexities.empty()) figure.pictures.push_back(bars_picture(perplexities, "perplexity"));
  return figure;
}

Figure measured_figure(const Json& report) {
  Figure figure{
      .name = "measured",
      .title = "Measured and predicted time of a layer",
      .caption = measured_caption(report),
      .pictures = {},
      .table = {{"", "dispatch ms", "experts ms", "combine ms", "until the slowest rank, ms"}}};
  const std::vector<TimeRow> rows = time_rows(report);
  for (const TimeRow& row : rows) {
    std::vector<std::string> cells = {row.name};
    for (const double part : row.parts) cells.push_back(fmt::format("{:.4g}", 1e3 * part));
    cells.push_back(fmt::format("{:.4g}", 1e3 * row.total));
    figure.table.push_back(std::move(cells));
  }
  figure.pictures.push_back(times_picture(rows));
  return figure;
}

}  // namespace c2r
