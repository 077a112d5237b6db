// Puts the answer, the figures and the data of a report into one HTML page.
#include "c2r/report/page/page.h"

#include <fmt/format.h>

#include <vector>

#include "c2r/placement/cost/traffic_model.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/change_internal.h"
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

std::string copies_tile(const Json& step, const std::string& what) {
  return tile(fmt::format("{:.3f}", mean_of(step, "wire_copies_per_token")),
              "copies of a token on links, " + what);
}

// How copies are sent, in the words of a tile.
std::string mode_words(const Json& step, bool has_two_kinds_of_links) {
  switch (parse_copy_mode(step.at("copy_mode").get<std::string>())) {
    case CopyMode::kPerExpert:
      return "one for each expert";
    case CopyMode::kPerNode:
      if (has_two_kinds_of_links) return "one for each node, and those forwarded there";
      [[fallthrough]];
    case CopyMode::kPerRank:
      return "one for each rank";
    case CopyMode::kAllGather:
      return "to every rank";
  }
  return "";
}

std::string tiles(const Json& report) {
  const Json &steps = report.at("steps"), &before = step_before(report),
             &after = step_after(report);
  const bool has_two_kinds = internal::has_two_kinds_of_links(report);
  std::string html = "<div class=\"row\">\n";
  if (&before != &steps.front()) {
    html +=
        copies_tile(steps.front(), "experts in order, " + mode_words(steps.front(), has_two_kinds));
  }
  html += copies_tile(before, "before: experts in order, " + mode_words(before, has_two_kinds));
  html += copies_tile(after, "under this plan");
  html += tile(
      fmt::format("{:.3f} → {:.3f}", mean_of(before, "imbalance"), mean_of(after, "imbalance")),
      "rank imbalance, before → under this plan");
  return html + "</div>\n";
}

std::string paragraph(const char* heading, const Json& text) {
  if (text.get<std::string>().empty()) return "";
  return fmt::format("<h2>{}</h2>\n<p>{}</p>\n", heading, text_of(text));
}

std::string answer_html(const Json& report) {
  const Json& answer = report.at("answer");
  std::string html = fmt::format("<p class=\"answer {}\">{}</p>\n",
                                 answer.at("is_advised").get<bool>() ? "good" : "bad",
                                 text_of(answer.at("sentence")));
  html += tiles(report) +
          "<p class=\"quiet\">A rank is a member of the group of devices that share the experts. "
          "A copy is one token sent to one rank; it crosses a link unless the token is on that "
          "rank. Imbalance is the load of the busiest rank over the mean of all ranks: 1 is "
          "perfect.</p>\n";
  html += paragraph("Why", answer.at("why")) + paragraph("How sure", answer.at("how_sure"));
  if (!answer.at("cautions").empty()) {
    html += "<h2>Be careful</h2>\n<ul class=\"cautions\">\n";
    for (const Json& caution : answer.at("cautions")) {
      html += fmt::format("<li>{}</li>\n", text_of(caution));
    }
    html += "</ul>\n";
  }
  return html;
}

// The commands that load the plan, and how to go back.
std::string loading_html(const Json& report) {
  const std::string plan = text_of(report.at("plan").at("name"));
  const Json* const engine = json_find(report, "engine");
  std::string target = "ENGINE";
  std::string rollback = "start the engine without these options";
  if (engine != nullptr && engine->contains("export_target")) {
    target = text_of(engine->at("export_target"));
    rollback = text_of(engine->at("rollback"));
  }
  std::string commands = fmt::format(
      "c2r export {} --to {} -o FILE     # prints the options that load FILE\n", plan, target);
  if (engine == nullptr) {
    commands +=
        fmt::format("mpirun -n {} c2r score MODEL --text TEXT --plan {}     # c2r as the engine\n",
                    internal::cluster_of(report).ep_size(), plan);
  }
  return fmt::format("<pre>{}</pre>\n<p>To go back, {}.", commands, rollback);
}

std::string next_steps_html(const Json& report) {
  const std::string plan = text_of(report.at("plan").at("name"));
  const Cluster cluster = internal::cluster_of(report);
  std::string html = "<section id=\"next\">\n<h2>What to do next</h2>\n";
  if (report.at("answer").at("is_advised").get<bool>()) {
    html +=
        "<p>Load the plan, and measure a step before and after. A placement changes where experts "
        "are computed, not what a model answers.</p>\n";
  } else if (internal::is_hidden(report)) {
    html +=
        "<p>Leave the placement as it is, or look at another backend of the engine "
        "(<code>--backend</code>). To try this plan nevertheless:</p>\n";
  } else {
    html += fmt::format(
        "<p>Leave the placement as it is. Record more of the traffic that a plan will serve, make "
        "a plan of it, and look at its page:</p>\n"
        "<pre>c2r plan TRACE --cluster {}x{} --fit even -o NEW_PLAN\n"
        "c2r report TRACE --plan NEW_PLAN --on odd -o report.html</pre>\n"
        "<p>To try this plan nevertheless:</p>\n",
        cluster.num_nodes, cluster.ranks_per_node);
  }
  return html + loading_html(report) +
         fmt::format(
             " Traffic changes: record it from time to time, and count this plan on it "
             "(<code>c2r report TRACE --plan {}</code>).</p>\n</section>\n",
             plan);
}

constexpr std::string_view kHeatMapHtml =
    R"(<section id="heat">
<h2>Which experts work together</h2>
<p>How often the experts of a layer were chosen by the same token; each row and each column is an expert. Where experts are in the order of the plan's ranks, a frame is a rank: cells within the frames are pairs that the plan has on one rank. <span class="screen">Point at a cell, or use the arrow keys in the picture.</span></p>
<p class="controls">
<label>layer <input id="heat-layer" type="range" min="0" value="0"> <output id="heat-layer-name"></output></label>
<label>values <select id="heat-values"><option value="raw">tokens</option><option value="share">share of the row</option><option value="lift">lift: over what chance gives</option></select></label>
<label>order <select id="heat-order"><option value="rank">by rank of the plan</option><option value="together">by collaboration</option><option value="id">by number</option></select></label>
</p>
<p id="heat-shown" class="quiet"></p>
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
      "{} experts, top-{}. The plan is {}, made by the method {}{}.</p>\n",
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
  const Cluster cluster = internal::cluster_of(report);
  const std::string model = report.at("trace").at("model").get<std::string>();
  return fmt::format("{} on {} node{} of {} rank{}", model.empty() ? "Experts" : model,
                     cluster.num_nodes, cluster.num_nodes == 1 ? "" : "s", cluster.ranks_per_node,
                     cluster.ranks_per_node == 1 ? "" : "s");
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
