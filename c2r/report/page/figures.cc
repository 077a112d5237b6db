// Draws the figures of a report as SVG from its JSON, and lists their numbers in tables.
#include "c2r/report/page/figures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/axes.h"
#include "c2r/report/page/change_internal.h"
#include "c2r/report/page/given_figures.h"
#include "c2r/report/page/matrix_figures.h"
#include "c2r/report/page/report_data.h"

namespace c2r {
namespace {

using Numbers = std::vector<double>;

// Of a picture outside of the page: black on white.
constexpr std::string_view kFigureStyle =
    "text{font:13px sans-serif;fill:#222}.before{fill:#9aa5b1}.after,.cell{fill:#0b62a4}"
    ".third{fill:#d98a1f}"
    ".line-before{fill:none;stroke:#9aa5b1;stroke-width:2}"
    ".line-after{fill:none;stroke:#0b62a4;stroke-width:2}"
    ".grid{stroke:#ddd}.axis{stroke:#555}.bound{stroke:#c43d00;stroke-dasharray:6 4}";

Numbers column(const Json& step, const char* name) {
  return step.at(name).get<Numbers>();
}

std::string number(double value) {
  return fmt::format("{:.3f}", value);
}

// What a step of predict_waterfall() changes; empty for the engine's own and other modes.
std::string_view step_words(std::string_view step) {
  if (step == "per-expert") return "experts in order, and a copy for each expert";
  if (step == "deduplication") return "a copy for each rank or node, not for each expert";
  if (step == "placement") return "experts where the plan has them";
  if (step == "replicas") return "all slots of the plan, with replicas of experts";
  return "";
}

std::string waterfall_caption(const Json& report) {
  std::string text = "Copies of a token that cross a link between ranks, mean over layers.";
  for (const Json& step : report.at("steps")) {
    const auto name = step.at("step").get<std::string>();
    const std::string_view words = step_words(name);
    if (!words.empty()) text += fmt::format(" {}: {}.", name, words);
  }
  if (internal::has_two_kinds_of_links(report)) {
    text +=
        " A token that is forwarded within a node crosses a second link, so that fewer copies "
        "between nodes, below, may be more copies in all.";
  }
  return text;
}

// A bar for each step: copies in a column, and what they are.
Svg step_bars(const Json& steps, const char* column_name, const std::string& what,
              bool has_heading) {
  const double most = mean_of(steps[0], column_name);
  std::vector<std::string> names;
  double largest = 1e-9;
  for (const Json& step : steps) {
    names.push_back(step.at("step").get<std::string>());
    largest = std::max(largest, mean_of(step, column_name));
  }
  const double left = margin_for(names);
  const double heading = has_heading ? 16 : 0;
  Axes axes(640, heading + 34.0 * static_cast<double>(steps.size()) + 34, what + ", by step",
            {.left = left, .right = 150, .top = 8, .bottom = 24});
  axes.set_x(0, largest);
  if (has_heading) axes.svg().text(left, 14, "start", what);
  double y = 12 + heading;
  for (const Json& step : steps) {
    const auto name = step.at("step").get<std::string>();
    const double copies = mean_of(step, column_name);
    axes.svg().text(left - 8, y + 17, "end", name);
    axes.svg().rect(axes.x(0), y, axes.x(copies) - axes.x(0), 24,
                    &step == &steps.back() ? "after" : "before",
                    fmt::format("{}: {} {}", name, number(copies), what));
    const std::string change =
        most > 0 && copies != most ? fmt::format("  ({:+.1f} %)", 100 * (copies / most - 1)) : "";
    axes.svg().text(axes.x(copies) + 6, y + 17, "start", number(copies) + change);
    y += 34;
  }
  return axes.svg();
}

Figure waterfall(const Json& report) {
  const Json& steps = report.at("steps");
  const bool has_bytes = steps[0].contains("wire_bytes_per_token");
  const bool has_time = !steps[0].at("predicted_layer_time_s").empty();
  Figure figure{
      .name = "waterfall",
      .title = "What each step saves",
      .caption = waterfall_caption(report),
      .table = {{"step", "copies a token", "on the wire", "between nodes", "rank imbalance"}}};
  if (has_bytes) figure.table[0].emplace_back("kB a token and layer");
  if (has_time) figure.table[0].emplace_back("predicted ms a layer");
  for (const Json& step : steps) {
    std::vector<std::string> row = {
        step.at("step").get<std::string>(), number(mean_of(step, "copies_per_token")),
        number(mean_of(step, "wire_copies_per_token")),
        number(mean_of(step, "inter_node_copies_per_token")), number(mean_of(step, "imbalance"))};
    if (has_bytes) {
      row.push_back(fmt::format("{:.2f}", step.at("wire_bytes_per_token").get<double>() / 1e3));
    }
    if (has_time) {
      row.push_back(fmt::format("{:.4g}", 1e3 * mean_of(step, "predicted_layer_time_s")));
    }
    figure.table.push_back(std::move(row));
  }
  const bool has_two = internal::has_two_kinds_of_links(report);
  figure.pictures.push_back(
      step_bars(steps, "wire_copies_per_token", "copies on the wire", has_two));
  if (has_two) {
    figure.pictures.push_back(
        step_bars(steps, "inter_node_copies_per_token", "copies between nodes", has_two));
  }
  return figure;
}

// Two bars a layer, and a line at `bound` if it is positive.
Svg layer_bars(const std::vector<std::string>& names, const Numbers& before, const Numbers& after,
               const std::string& what, double bound) {
  Axes axes(960, 220, fmt::format("{} of each layer, before and after", what), {});
  const double most = std::max({std::ranges::max(before), std::ranges::max(after), bound, 1e-9});
  axes.set_x(0, static_cast<double>(names.size()));
  axes.set_y(0, 1.08 * most);
  axes.draw_y_grid(what);
  const std::size_t every = 1 + names.size() / 32;
  for (std::size_t layer = 0; layer < names.size(); ++layer) {
    const double x = static_cast<double>(layer), width = axes.x(0.36) - axes.x(0);
    const auto bar = [&](double offset, double value, std::string_view style, const char* which) {
      axes.svg().rect(axes.x(x + offset), axes.y(value), width, axes.y(0) - axes.y(value), style,
                      fmt::format("layer {}, {}: {} {}", names[layer], which, number(value), what));
    };
    bar(0.12, before[layer], "before", "before");
    bar(0.5, after[layer], "after", "after");
    if (layer % every == 0) axes.svg().text(axes.x(x + 0.5), 212, "middle", names[layer]);
  }
  if (bound > 0) axes.svg().line(axes.x(0), axes.y(bound), axes.right(), axes.y(bound), "bound");
  return axes.svg();
}

Figure layers(const Json& report) {
  const Json &before = step_before(report), &after = step_after(report);
  Figure figure{.name = "layers",
                .title = "Layer by layer",
                .caption =
                    "Copies on the wire, and imbalance of ranks (the busiest rank's choices "
                    "over the mean), before and under the plan. The dashed line is the "
                    "bound that the plan was made for. Grey is before, blue is under the "
                    "plan.",
                .table = {{"layer", "copies before", "copies after", "rank imbalance before",
                           "rank imbalance after"}}};
  const std::vector<std::string> names = layer_names_of(report);
  const Numbers copies_before = column(before, "wire_copies_per_token"),
                copies_after = column(after, "wire_copies_per_token"),
                imbalance_before = column(before, "imbalance"),
                imbalance_after = column(after, "imbalance");
  for (std::size_t layer = 0; layer < names.size(); ++layer) {
    figure.table.push_back({names[layer], number(copies_before[layer]), number(copies_after[layer]),
                            number(imbalance_before[layer]), number(imbalance_after[layer])});
  }
  const Json& bound = report.at("plan").at("max_imbalance");
  figure.pictures.push_back(
      layer_bars(names, copies_before, copies_after, "copies on the wire", 0));
  figure.pictures.push_back(layer_bars(names, imbalance_before, imbalance_after, "rank imbalance",
                                       bound.is_null() ? 0 : bound.get<double>()));
  return figure;
}

// Mean over layers of a rank's share of all choices, times the number of ranks.
Numbers loads_of(const Json& step) {
  const Json& volumes = step.at("counts").at("layers");
  Numbers loads(volumes[0].at("choices").size(), 0.0);
  for (const Json& volume : volumes) {
    const auto choices = volume.at("choices").get<Numbers>();
    double sum = 0;
    for (const double rank : choices) sum += rank;
    for (std::size_t r = 0; r < loads.size() && sum > 0; ++r) {
      loads[r] += choices[r] / sum * static_cast<double>(loads.size()) /
                  static_cast<double>(volumes.size());
    }
  }
  return loads;
}

Figure loads(const Json& report) {
  const Numbers before = loads_of(step_before(report)), after = loads_of(step_after(report));
  std::vector<std::string> names;
  Figure figure{.name = "loads",
                .title = "Load of each rank",
                .caption =
                    "Choices that a rank computes, over the mean of all ranks; mean over "
                    "layers; grey is before, blue is under the plan. Single layers are more "
                    "uneven: see the figure above.",
                .table = {{"rank", "before", "after"}}};
  for (std::size_t r = 0; r < before.size(); ++r) {
    names.push_back(std::to_string(r));
    figure.table.push_back({names[r], number(before[r]), number(after[r])});
  }
  figure.pictures.push_back(layer_bars(names, before, after, "times the mean", 0));
  return figure;
}

Numbers column_of_parts(const Json& parts, const char* name) {
  Numbers values;
  for (const Json& part : parts) values.push_back(part.at(name).get<double>());
  return values;
}

// The predicted times of the parts, in ms.
Numbers ms_of_parts(const Json& parts, const char* name) {
  Numbers values = column_of_parts(parts, name);
  for (double& value : values) value *= 1e3;
  return values;
}

// Two lines over the parts of a trace.
Svg lines_over_parts(const Numbers& before, const Numbers& after, const std::string& what) {
  Axes axes(640, 240, fmt::format("{} over the trace", what), {});
  axes.set_x(0, static_cast<double>(before.size()));
  axes.set_y(0, 1.08 * std::max({std::ranges::max(before), std::ranges::max(after), 1e-9}));
  axes.draw_y_grid(what);
  const auto draw = [&](const Numbers& values, const std::string& style, const char* name) {
    std::vector<std::pair<double, double>> points;
    for (std::size_t p = 0; p < values.size(); ++p) {
      points.emplace_back(axes.x(static_cast<double>(p) + 0.5), axes.y(values[p]));
    }
    axes.svg().polyline(points, "line-" + style);
    for (std::size_t p = 0; p < values.size(); ++p) {
      axes.svg().circle(points[p].first, points[p].second, 4, style,
                        fmt::format("part {}, {}: {} {}", p + 1, name, number(values[p]), what));
    }
  };
  draw(before, "before", "before");
  draw(after, "after", "under the plan");
  for (std::size_t p = 0; p < before.size(); ++p) {
    axes.svg().text(axes.x(static_cast<double>(p) + 0.5), 232, "middle", std::to_string(p + 1));
  }
  return axes.svg();
}

// The predicted times of a layer in the parts, as a picture and two columns.
void add_times(const Json& parts, Figure& figure) {
  const Numbers before = ms_of_parts(parts, "time_before_s"),
                after = ms_of_parts(parts, "time_after_s");
  figure.pictures.push_back(lines_over_parts(before, after, "predicted ms a layer"));
  figure.table[0].insert(figure.table[0].end(), {"predicted ms before", "predicted ms after"});
  for (std::size_t p = 0; p < before.size(); ++p) {
    figure.table[p + 1].push_back(number(before[p]));
    figure.table[p + 1].push_back(number(after[p]));
  }
}

Figure drift(const Json& report) {
  const Json& parts = report.at("drift");
  Figure figure{.name = "drift",
                .title = "Over the trace",
                .caption =
                    "Copies on the wire, imbalance of ranks and, where they are predicted, times, "
                    "in ten parts of the trace, in its order; grey is before, blue is under the "
                    "plan. Where the lines of copies or of times meet, the plan does not fit the "
                    "traffic.",
                .table = {{"part", "tokens", "copies before", "copies after",
                           "rank imbalance before", "rank imbalance after"}}};
  const Numbers copies_before = column_of_parts(parts, "before"),
                copies_after = column_of_parts(parts, "after"),
                imbalance_before = column_of_parts(parts, "imbalance_before"),
                imbalance_after = column_of_parts(parts, "imbalance_after");
  for (std::size_t p = 0; p < parts.size(); ++p) {
    figure.table.push_back({std::to_string(p + 1),
                            std::to_string(parts[p].at("num_tokens").get<std::int64_t>()),
                            number(copies_before[p]), number(copies_after[p]),
                            number(imbalance_before[p]), number(imbalance_after[p])});
  }
  figure.pictures = {lines_over_parts(copies_before, copies_after, "copies on the wire"),
                     lines_over_parts(imbalance_before, imbalance_after, "rank imbalance")};
  if (!parts.empty() && parts[0].contains("time_before_s")) add_times(parts, figure);
  return figure;
}

// The place for a label that is wanted at (x, y): below the labels that are there already.
std::pair<double, double> free_place(double x, double y,
                                     std::span<const std::pair<double, double>> labels) {
  const auto is_taken = [&](const std::pair<double, double>& label) {
    return std::abs(label.first - x) < 90 && std::abs(label.second - y) < 13;
  };
  while (std::ranges::any_of(labels, is_taken)) y += 13;
  return {x, y};
}

// The plan, baselines and, where it was searched, the front: a point each.
Figure front(const Json& report) {
  const Json& placements = report.at("comparison").at("placements");
  Figure figure{.name = "front",
                .title = "Copies against balance",
                .caption =
                    "Each point is a placement: to the left fewer copies cross links, "
                    "further down ranks are loaded more alike. contiguous: experts in order, as "
                    "engines place them; round-robin and random: in turn and shuffled; eplb: "
                    "DeepSeek's balancer of loads; affinity and grace: experts grouped by "
                    "collaboration (C2R, GRACE-MoE).",
                .table = {{"placement", "copies on the wire", "rank imbalance"}}};
  std::vector<std::pair<double, double>> values;
  double least_x = 1e300, most_x = 0, most_y = 1;
  for (const Json& entry : placements) {
    values.emplace_back(mean_of(entry, "wire_copies_per_token"), mean_of(entry, "imbalance"));
    least_x = std::min(least_x, values.back().first);
    most_x = std::max(most_x, values.back().first);
    most_y = std::max(most_y, values.back().second);
  }
  Axes axes(720, 320, "Copies on the wire against rank imbalance", {.bottom = 40});
  const double margin = std::max(0.08 * (most_x - least_x), 1e-3);
  axes.set_x(least_x - margin, most_x + 3 * margin);
  axes.set_y(1, 1.05 * most_y);
  axes.draw_y_grid("rank imbalance");
  axes.draw_x_labels("copies on the wire");
  std::vector<std::pair<double, double>> labels;
  for (std::size_t p = 0; p < placements.size(); ++p) {
    const auto name = placements[p].at("placement").get<std::string>();
    const auto [x, y] = values[p];
    axes.svg().circle(axes.x(x), axes.y(y), 5, "after",
                      fmt::format("{}: {} copies, rank imbalance {}", name, number(x), number(y)));
    const std::pair<double, double> label = free_place(axes.x(x) + 8, axes.y(y) + 4, labels);
    axes.svg().text(label.first, label.second, "start", name);
    labels.push_back(label);
    figure.table.push_back({name, number(x), number(y)});
  }
  figure.pictures.push_back(axes.svg());
  return figure;
}

}  // namespace

std::vector<Figure> report_figures(const Json& report) {
  // More ranks would be more cells than a reader can tell apart.
  const bool has_cells = report.at("links").at("before").size() <= 64;
  std::vector<Figure> figures = {waterfall(report), layers(report), loads(report), drift(report)};
  if (report.contains("comparison")) figures.push_back(front(report));
  if (report.contains("constraint")) figures.push_back(constraint_figure(report));
  if (report.contains("measured")) figures.push_back(measured_figure(report));
  if (has_cells) figures.push_back(links_figure(report));
  if (has_cells) figures.push_back(sequence_figure(report));
  return figures;
}

std::string figure_svg(const Json& report, std::string_view name) {
  std::vector<std::string> names;
  for (const Figure& figure : report_figures(report)) {
    names.push_back(figure.name);
    if (figure.name != name) continue;
    Svg picture = figure.pictures[0];
    for (std::size_t p = 1; p < figure.pictures.size(); ++p) picture.add_below(figure.pictures[p]);
    return picture.str(kFigureStyle);
  }
  C2R_THROW(kInvalidArgument, "a figure of this report is {}; not '{}'", fmt::join(names, ", "),
            shown(name));
}

}  // namespace c2r
