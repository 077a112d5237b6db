// Puts the answer, the figures and the data of a report into one HTML page.
#include "c2r/report/page/page.h"

#include <fmt/format.h>

#include <vector>

#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/figures.h"
#include "c2r/report/page/report_data.h"

namespace c2r {
namespace {

std::string text_of(const Json& value) {
  return html_text(value.get<std::string>());
}

// JSON inside of a script element: "</script>" and "<!--" must not occur in it.
std::string embedded_json(const Json& report) {
  std::string text;
  for (const char c : json_text(report)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

std::string table_html(const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<table>\n<thead><tr>";
  for (const std::string& cell : rows[0]) {
    html += fmt::format("<th scope=\"col\">{}</th>", html_text(cell));
  }
  html += "</tr></thead>\n<tbody>\n";
  for (std::size_t r = 1; r < rows.size(); ++r) {
    html += "<tr>";
    for (const std::string& cell : rows[r]) html += fmt::format("<td>{}</td>", html_text(cell));
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table>\n";
}

std::string figure_html(const Figure& figure) {
  std::string html =
      fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n<p>{}</p>\n<div class=\"row\">\n",
                  html_text(figure.name), html_text(figure.title), html_text(figure.caption));
  for (const Svg& picture : figure.pictures) {
    html += "<div class=\"picture\">" + picture.str() + "</div>\n";
  }
  html += "</div>\n<details><summary>The numbers</summary>\n<div class=\"wide\">" +
          table_html(figure.table) + "</div></details>\n</section>\n";
  return html;
}

std::string tile(const std::string& value, const std::string& what) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", html_text(value),
                     html_text(what));
}

std::string tiles(const Json& report) {
  const Json &steps = report.at("steps"), &before = step_before(report),
             &after = step_after(report);
  std::string html = "<div class=\"row\">\n";
  if (&before != &steps.front()) {
    html += tile(fmt::format("{:.3f}", mean_of(steps.front(), "wire_copies_per_token")),
                 "copies on the wire, one for each expert");
  }
  html += tile(fmt::format("{:.3f}", mean_of(before, "wire_copies_per_token")),
               "before: experts in order, " + before.at("copy_mode").get<std::string>());
  html += tile(fmt::format("{:.3f}", mean_of(after, "wire_copies_per_token")), "under this plan");
  html += tile(
      fmt::format("{:.3f} → {:.3f}", mean_of(before, "imbalance"), mean_of(after, "imbalance")),
      "imbalance of ranks: busiest over mean");
  return html + "</div>\n";
}

std::string answer_html(const Json& report) {
  const Json& answer = report.at("answer");
  std::string html = fmt::format("<p class=\"answer {}\">{}</p>\n",
                                 answer.at("is_advised").get<bool>() ? "good" : "bad",
                                 text_of(answer.at("sentence")));
  html += tiles(report);
  if (!answer.at("cautions").empty()) {
    html += "<h2>Be careful</h2>\n<ul class=\"cautions\">\n";
    for (const Json& caution : answer.at("cautions")) {
      html += fmt::format("<li>{}</li>\n", text_of(caution));
    }
    html += "</ul>\n";
  }
  return html;
}

std::string next_steps_html(const Json& report) {
  const std::string plan = text_of(report.at("plan").at("name"));
  std::string target = "ENGINE";
  std::string rollback = "start the engine without these options";
  if (const Json* const engine = json_find(report, "engine")) {
    if (engine->contains("export_target")) {
      target = text_of(engine->at("export_target"));
      rollback = text_of(engine->at("rollback"));
    }
  }
  const bool is_advised = report.at("answer").at("is_advised").get<bool>();
  const Json& cluster = report.at("cluster");
  return fmt::format(
      "<section id=\"next\">\n<h2>{}</h2>\n"
      "<p>A placement changes where experts are computed, not what a model answers.</p>\n"
      "<pre>c2r export {} --to {} -o FILE     # prints the options that load FILE\n"
      "mpirun -n {} c2r score MODEL --text TEXT --plan {}</pre>\n"
      "<p>To go back, {}. Record new traffic from time to time, "
      "and count this plan on it: <code>c2r report TRACE --plan {}</code>.</p>\n</section>\n",
      is_advised ? "Load it, and go back" : "If it is to be tried nevertheless", plan, target,
      cluster.at("num_nodes").get<int>() * cluster.at("ranks_per_node").get<int>(), plan, rollback,
      plan);
}

constexpr std::string_view kHeatMapHtml =
    R"(<section id="heat">
<h2>Which experts work together</h2>
<p>How often the experts of a layer were chosen by the same token. Point at a cell, or use the arrow keys in the picture.</p>
<p class="controls">
<label>layer <input id="heat-layer" type="range" min="0" value="0"> <output id="heat-layer-name"></output></label>
<label>values <select id="heat-values"><option value="raw">tokens</option><option value="share">share of the row</option><option value="lift">lift: over what chance gives</option></select></label>
<label>order <select id="heat-order"><option value="rank">by rank of the plan</option><option value="together">by collaboration</option><option value="id">by number</option></select></label>
</p>
<canvas id="heat-map" width="640" height="640" tabindex="0" role="img" aria-label="Heat map of collaboration"></canvas>
<p id="heat-cell" role="status"></p>
<p>The load of each expert, tokens that chose it, in the order of the columns above; the dashed line is the mean.</p>
<canvas id="heat-loads" width="640" height="120" role="img" aria-label="Load of each expert of the layer"></canvas>
<details><summary>The numbers: the best collaborators of each expert in this layer</summary><div class="wide" id="heat-table"></div></details>
</section>
)";

// What was counted, and under which plan.
std::string counted_html(const Json& report) {
  const Json& trace = report.at("trace");
  std::string fitted;
  for (const Json& input : report.at("plan").at("fitted_on")) {
    fitted += (fitted.empty() ? "" : "; ") + text_of(input);
  }
  return fmt::format(
      "<p class=\"quiet\">Counted: {} tokens in {} sequences of {} ({} sequences), {} MoE layers, "
      "{} experts, top-{}. The plan is {}, made by {}{}.</p>\n",
      trace.at("num_tokens").get<std::int64_t>(), trace.at("num_sequences").get<std::int64_t>(),
      text_of(trace.at("name")), text_of(trace.at("part")),
      trace.at("num_layers").get<std::int64_t>(), trace.at("num_experts").get<std::int64_t>(),
      trace.at("top_k").get<std::int64_t>(), text_of(report.at("plan").at("name")),
      text_of(report.at("plan").at("method")), fitted.empty() ? "" : ", fitted on " + fitted);
}

std::string footer_html(const Json& report) {
  return fmt::format(
      "<footer><p>{}</p>\n<p><button id=\"save\">Save the data as JSON</button></p></footer>\n",
      text_of(report.at("c2r_version")));
}

std::string title_of(const Json& report) {
  const Json& cluster = report.at("cluster");
  const std::string model = report.at("trace").at("model").get<std::string>();
  return fmt::format("{} on {} x {} ranks", model.empty() ? "Experts" : model,
                     cluster.at("num_nodes").get<int>(), cluster.at("ranks_per_node").get<int>());
}

}  // namespace

std::string report_page(const Json& report) {
  const std::string title = html_text(title_of(report));
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n"
      "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
      title, page_style(), title);
  html += counted_html(report) + answer_html(report) + next_steps_html(report);
  for (const Figure& figure : report_figures(report)) html += figure_html(figure);
  html += kHeatMapHtml;
  html += footer_html(report);
  html += "</main>\n<script type=\"application/json\" id=\"report-data\">" + embedded_json(report) +
          "</script>\n<script>\n";
  html += page_script();
  return html + "</script>\n</body>\n</html>\n";
}

}  // namespace c2r
