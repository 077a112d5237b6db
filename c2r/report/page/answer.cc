// Decides what the numbers of a report mean for someone who has to load the plan or not.
#include "c2r/report/page/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "c2r/plan/predict.h"
#include "c2r/report/page/report_data.h"

namespace c2r {
namespace {

constexpr std::int64_t kFewSequences = 100;

std::string percent_text(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

// "4.31 kB", where the size of a token is known, or "1.31 copies".
std::string amount(const Json& step) {
  if (step.contains("wire_bytes_per_token")) {
    return fmt::format("{:.1f} kB", step.at("wire_bytes_per_token").get<double>() / 1e3);
  }
  return fmt::format("{:.3f} copies", mean_of(step, "wire_copies_per_token"));
}

struct Change {
  double copies = 0, least_in_parts = 0, most_in_parts = 0;  // saved, as shares of "before"
  double time = 0;                                           // saved, if known
  bool has_time = false;
};

double saved(double before, double after) {
  return before > 0 ? 1 - after / before : 0;
}

Change change_of(const Json& report) {
  const Json &before = step_before(report), &after = step_after(report);
  Change change{.copies = saved(mean_of(before, "wire_copies_per_token"),
                                mean_of(after, "wire_copies_per_token"))};
  std::vector<double> parts;
  for (const Json& part : report.at("drift")) {
    parts.push_back(saved(part.at("before").get<double>(), part.at("after").get<double>()));
  }
  change.least_in_parts = parts.empty() ? change.copies : std::ranges::min(parts);
  change.most_in_parts = parts.empty() ? change.copies : std::ranges::max(parts);
  change.has_time = !before.at("predicted_layer_time_s").empty();
  if (change.has_time) {
    change.time =
        saved(mean_of(before, "predicted_layer_time_s"), mean_of(after, "predicted_layer_time_s"));
  }
  return change;
}

std::string sentence(const Json& report, const Change& change, bool is_advised) {
  const Json &before = step_before(report), &after = step_after(report);
  const bool is_deduplicated = before.at("step") != "per-expert";
  std::string text = is_advised ? "" : "Do not load this plan. ";
  text += fmt::format(
      "A token and layer sends {} over links where experts are placed in order{}, and {} under "
      "this plan: {} {}, and {} to {} in ten parts of the trace.",
      amount(before), is_deduplicated ? " and each rank is sent to once" : "", amount(after),
      percent_text(std::abs(change.copies)), change.copies >= 0 ? "less" : "more",
      percent_text(change.least_in_parts), percent_text(change.most_in_parts));
  if (change.has_time) {
    text += fmt::format(" A layer is predicted to take {} {} time.",
                        percent_text(std::abs(change.time)), change.time >= 0 ? "less" : "more");
  }
  text += fmt::format(" The busiest rank computes {:.3f} times the mean, before {:.3f}.",
                      mean_of(after, "imbalance"), mean_of(before, "imbalance"));
  return text;
}

// Layers of the last step whose imbalance is above the plan's bound.
void add_bound(const Json& report, Json& cautions) {
  const Json& bound = report.at("plan").at("max_imbalance");
  if (bound.is_null()) return;
  const auto imbalance = step_after(report).at("imbalance").get<std::vector<double>>();
  const auto over = std::ranges::count_if(
      imbalance, [&](double layer) { return layer > bound.get<double>() + 1e-9; });
  if (over == 0) return;
  cautions.push_back(fmt::format(
      "In {} of {} layers the busiest rank is above the plan's bound of {:g}; the worst "
      "layer has {:.3f}.",
      over, imbalance.size(), bound.get<double>(), std::ranges::max(imbalance)));
}

Json cautions_of(const Json& report, const Change& change) {
  Json cautions = Json::array();
  const Json &trace = report.at("trace"), &after = step_after(report);
  for (const Json& input : report.at("plan").at("fitted_on")) {
    const std::string counted = fmt::format("{}, {}", trace.at("name").get<std::string>(),
                                            trace.at("part").get<std::string>());
    if (input == counted || input == trace.at("name") || trace.at("part") == "all") {
      cautions.push_back(
          "The counted tokens include those that the plan was fitted on, so new tokens may save "
          "less. Fit one part (c2r plan --fit even) and report the other (--on odd).");
      break;
    }
  }
  if (trace.at("num_sequences") < kFewSequences) {
    cautions.push_back(fmt::format(
        "Only {} sequences were counted. Routing differs between texts, so a plan needs some {} "
        "sequences at least.",
        trace.at("num_sequences").get<std::int64_t>(), kFewSequences));
  }
  if (change.least_in_parts < change.copies / 2) {
    cautions.push_back(fmt::format(
        "What the plan saves varies over the trace, from {} to {}: record the traffic that it will "
        "serve.",
        percent_text(change.least_in_parts), percent_text(change.most_in_parts)));
  }
  add_bound(report, cautions);
  if (!after.at("is_exact").get<bool>()) {
    cautions.push_back("Copies are lower bounds: pair counts do not determine them.");
  }
  if (!change.has_time) {
    cautions.push_back(
        "Whether fewer copies make a step faster depends on the links. Give --hidden, "
        "--intermediate and a cluster with device_flop_per_s to predict times.");
  }
  return cautions;
}

}  // namespace

Json answer_json(const Json& report) {
  const Change change = change_of(report);
  const double imbalance_saved =
      mean_of(step_before(report), "imbalance") - mean_of(step_after(report), "imbalance");
  const bool is_better_balanced = change.copies == 0 && imbalance_saved > 0;
  const bool saves = change.has_time ? change.time > 0 : change.copies > 0 || is_better_balanced;
  const bool is_advised = saves && change.least_in_parts >= 0;
  return {{"is_advised", is_advised},
          {"sentence", sentence(report, change, is_advised)},
          {"cautions", cautions_of(report, change)}};
}

}  // namespace c2r
