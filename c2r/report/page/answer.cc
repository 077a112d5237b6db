// Decides what the numbers of a report mean for someone who has to load the plan or not.
#include "c2r/report/page/answer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/prediction/resample.h"
#include "c2r/report/page/report_data.h"
#include "c2r/report/savings.h"

namespace c2r {
namespace {

constexpr double kMuchLessEven = 1.05;
constexpr std::ptrdiff_t kManyWorseParts = 3;  // of ten

std::string percent_text(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

// "25.1 % less", "3.0 % more".
std::string change_text(double saved) {
  return fmt::format("{} {}", percent_text(std::abs(saved)), saved >= 0 ? "less" : "more");
}

double saved(double before, double after) {
  return before > 0 ? 1 - after / before : 0;
}

// What is saved in the parts of a trace, as shares of "before".
struct SavedInParts {
  double least = 0, most = 0;
  std::ptrdiff_t num_parts = 0, num_worse = 0;  // worse: less than nothing is saved
  bool is_last_worse = false;
};

struct Change {
  double copies = 0;  // saved, as a share of "before"
  bool has_time = false;
  double time = 0;  // saved, if known
  SavedInParts copies_in_parts, time_in_parts;
};

SavedInParts saved_in_parts(const Json& parts, const char* key_before, const char* key_after) {
  std::vector<double> shares = {};
  for (const Json& part : parts) {
    shares.push_back(saved(part.at(key_before).get<double>(), part.at(key_after).get<double>()));
  }
  if (shares.empty()) return {};
  return {.least = std::ranges::min(shares),
          .most = std::ranges::max(shares),
          .num_parts = std::ssize(shares),
          .num_worse = std::ranges::count_if(shares, [](double share) { return share < 0; }),
          .is_last_worse = shares.back() < 0};
}

Change change_of(const Json& report) {
  const Json &before = step_before(report), &after = step_after(report),
             &parts = report.at("drift");
  Change change{.copies = saved(mean_of(before, "wire_copies_per_token"),
                                mean_of(after, "wire_copies_per_token")),
                .has_time = !before.at("predicted_layer_time_s").empty(),
                .copies_in_parts = saved_in_parts(parts, "before", "after")};
  if (change.has_time) {
    change.time =
        saved(mean_of(before, "predicted_layer_time_s"), mean_of(after, "predicted_layer_time_s"));
    change.time_in_parts = saved_in_parts(parts, "time_before_s", "time_after_s");
  }
  return change;
}

// Why the plan may not fit the traffic of today; empty if few parts are worse, without the last.
std::string drift_reason(const SavedInParts& parts, const char* what) {
  if (!parts.is_last_worse && parts.num_worse < kManyWorseParts) return "";
  return fmt::format("in {} of {} parts of the trace{} {} than before, up to {}", parts.num_worse,
                     parts.num_parts, parts.is_last_worse ? ", the last one included," : "", what,
                     percent_text(-parts.least));
}

// The interval of what is decided by, time or else copies; nothing if sequences were not resampled.
std::optional<Interval> interval_of(const Json& report, const char* what) {
  const Json* const resampled = json_find(report, "resampled");
  const Json* const ends = resampled == nullptr ? nullptr : json_find(*resampled, what);
  if (ends == nullptr) return std::nullopt;
  return Interval{ends->at(0).get<double>(), ends->at(1).get<double>()};
}

// The kernel of the engine that the answer is about; null without an engine.
const Json* kernel_of_engine(const Json& report) {
  const Json* const engine = json_find(report, "engine");
  if (engine == nullptr) return nullptr;
  const auto& kernels = engine->at("kernels");
  const auto kernel = std::ranges::find_if(
      kernels, [&](const Json& one) { return one.at("kernel") == engine->at("kernel"); });
  return kernel == kernels.end() ? nullptr : &*kernel;
}

bool is_hidden(const Json& report) {
  const Json* const kernel = kernel_of_engine(report);
  return kernel != nullptr && !kernel->contains("copy_mode");
}

std::string engine_name(const Json& report) {
  const Json& engine = report.at("engine");
  return fmt::format("{}, {}", engine.at("title").get<std::string>(),
                     engine.at("kernel").get<std::string>());
}

// Why the plan is no better than before on all counted tokens together; empty if it is.
std::string no_saving_reason(const Json& report, const Change& change) {
  if (change.has_time) {
    return change.time > 0 ? "" : "a layer is predicted to take no less time than before";
  }
  const double before = mean_of(step_before(report), "imbalance");
  const double after = mean_of(step_after(report), "imbalance");
  const bool is_better_balanced = change.copies == 0 && after < before;
  if (change.copies <= 0 && !is_better_balanced) {
    return "it sends no fewer copies, and ranks are loaded no more evenly";
  }
  const Json& max_imbalance = report.at("plan").at("max_imbalance");
  const double bound = max_imbalance.is_null() ? 1 : max_imbalance.get<double>();
  if (after <= kMuchLessEven * std::max(before, bound)) return "";
  return fmt::format(
      "ranks are loaded less evenly than before{}: the busiest rank computes {:.3f} times the "
      "mean, before {:.3f}",
      max_imbalance.is_null() ? "" : " and than it was made for", after, before);
}

// Why the plan may be worse on other tokens than on those that were counted.
std::vector<std::string> doubts(const Json& report, const Change& change) {
  std::vector<std::string> reasons;
  for (const std::string& reason :
       {drift_reason(change.copies_in_parts, "it sends more"),
        drift_reason(change.time_in_parts, "a layer takes more time")}) {
    if (!reason.empty()) reasons.push_back(reason);
  }
  const auto interval = interval_of(report, change.has_time ? "saved_time" : "saved_copies");
  const bool saves = change.has_time ? change.time > 0 : change.copies > 0;
  if (saves && interval && interval->least <= 0) {
    reasons.push_back(fmt::format("over resampled sequences it saves {} of the {}",
                                  interval_text(*interval), change.has_time ? "time" : "copies"));
  }
  const auto num_sequences = report.at("trace").at("num_sequences").get<std::int64_t>();
  if (num_sequences < kTooFewSequences) {
    reasons.push_back(fmt::format("{} too few to know what it saves of other texts",
                                  num_sequences == 1
                                      ? std::string("1 sequence is")
                                      : fmt::format("{} sequences are", num_sequences)));
  }
  return reasons;
}

std::vector<std::string> reasons_against(const Json& report, const Change& change) {
  if (is_hidden(report)) {
    return {fmt::format("with {} {}", engine_name(report),
                        kernel_of_engine(report)->at("verdict").get<std::string>())};
  }
  const std::string no_saving = no_saving_reason(report, change);
  std::vector<std::string> reasons = doubts(report, change);
  if (!no_saving.empty()) reasons.insert(reasons.begin(), no_saving);
  return reasons;
}

// What a token and layer sends: "171.9 kB" where the size of a token is known, or "1.313 copies".
std::string amount(const Json& step) {
  if (step.contains("wire_bytes_per_token")) {
    return fmt::format("{:.1f} kB", step.at("wire_bytes_per_token").get<double>() / 1e3);
  }
  return fmt::format("{:.3f} copies", mean_of(step, "wire_copies_per_token"));
}

// What a kernel sends, dispatch and combine together: bytes, or copies.
double total_of(const Json& copies) {
  if (copies.contains("bytes_per_token")) return copies.at("bytes_per_token").get<double>();
  return copies.at("dispatch_copies_per_token").get<double>() +
         copies.at("combine_copies_per_token").get<double>();
}

std::string kernel_amount(const Json& copies) {
  const bool has_bytes = copies.contains("bytes_per_token");
  return has_bytes ? fmt::format("{:.1f} kB", total_of(copies) / 1e3)
                   : fmt::format("{:.3f} copies there and back", total_of(copies));
}

// How the copies of resampled sequences are weighted; empty where all copies count alike.
std::string weight_text(const Json& report) {
  const Cluster cluster = cluster_from_json(report.at("cluster"), "the report");
  if (cluster.num_nodes == 1 || cluster.ranks_per_node == 1) return "";
  return fmt::format(", where a copy between nodes counts as {:.3g} within a node",
                     node_copy_weight(cluster));
}

std::string traffic_sentence(const Json& report, const Change& change) {
  const auto interval = change.has_time ? std::nullopt : interval_of(report, "saved_copies");
  const std::string over = interval ? fmt::format(" ({} over resampled sequences{})",
                                                  interval_text(*interval), weight_text(report))
                                    : "";
  const Json* const kernel = kernel_of_engine(report);
  if (kernel != nullptr && !is_hidden(report)) {
    const Json &today = kernel->at("today"), &planned = kernel->at("planned");
    const bool is_one_mode = kernel->at("copy_mode") == kernel->at("combine_mode");
    return fmt::format("Your engine ({}) sends {} a token and layer, and {} under this plan: {}{}.",
                       engine_name(report), kernel_amount(today), kernel_amount(planned),
                       change_text(saved(total_of(today), total_of(planned))),
                       is_one_mode ? over : "");
  }
  const Json& before = step_before(report);
  return fmt::format(
      "In each layer a token sends {} over links where experts are placed in order{}, and {} under "
      "this plan: {}{}.",
      amount(before),
      before.at("step") == "deduplication" ? " and a rank gets one copy of a token" : "",
      amount(step_after(report)), change_text(change.copies), over);
}

// " at 256 tokens a rank"; empty where the batch is all counted tokens.
std::string batch_text(const Json& report) {
  const Json& batch = report.at("batch_tokens");
  if (batch.is_null()) return "";
  const Json& cluster = report.at("cluster");
  const double ranks =
      cluster.at("num_nodes").get<double>() * cluster.at("ranks_per_node").get<double>();
  return fmt::format(" at {:.6g} tokens a rank", batch.get<double>() / ranks);
}

std::string time_sentence(const Json& report, const Change& change) {
  if (!change.has_time || is_hidden(report)) return "";  // times have the exchange in them
  const auto interval = interval_of(report, "saved_time");
  return fmt::format(
      " A layer is predicted to take {} time{}{}.", change_text(change.time), batch_text(report),
      interval ? fmt::format(" (over resampled sequences it saves {})", interval_text(*interval))
               : "");
}

std::string sentence(const Json& report, const Change& change,
                     const std::vector<std::string>& reasons) {
  const Json &before = step_before(report), &after = step_after(report);
  std::string text;
  if (!reasons.empty()) {
    text = fmt::format("Do not load this plan: {}. ", fmt::join(reasons, "; "));
  }
  text += traffic_sentence(report, change) + time_sentence(report, change);
  const auto worst = [](const Json& step) {
    return std::ranges::max(step.at("imbalance").get<std::vector<double>>());
  };
  return text + fmt::format(
                    " The busiest rank computes {:.3f} times the mean (before {:.3f}), and {:.3f} "
                    "times in the worst layer (before {:.3f}).",
                    mean_of(after, "imbalance"), mean_of(before, "imbalance"), worst(after),
                    worst(before));
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

void add_fitted(const Json& report, Json& cautions) {
  const Json& trace = report.at("trace");
  const std::string counted = fmt::format("{}, {}", trace.at("name").get<std::string>(),
                                          trace.at("part").get<std::string>());
  for (const Json& input : report.at("plan").at("fitted_on")) {
    if (input != counted && input != trace.at("name") && trace.at("part") != "all") continue;
    cautions.push_back(
        "The counted tokens include those that the plan was fitted on, so new tokens may save "
        "less. Fit one part (c2r plan --fit even) and report the other (--on odd).");
    return;
  }
}

Json cautions_of(const Json& report, const Change& change) {
  Json cautions = Json::array();
  const Json &trace = report.at("trace"), &after = step_after(report);
  add_fitted(report, cautions);
  if (trace.at("num_sequences") < kFewSequences) {
    cautions.push_back(fmt::format(
        "Only {} sequences were counted. Routing differs between texts, so a plan needs some {} "
        "sequences at least.",
        trace.at("num_sequences").get<std::int64_t>(), kFewSequences));
  }
  const SavedInParts& parts = change.has_time ? change.time_in_parts : change.copies_in_parts;
  if (parts.least < (change.has_time ? change.time : change.copies) / 2) {
    cautions.push_back(fmt::format(
        "What the plan saves of the {} varies over the trace, from {} to {}: record the "
        "traffic that it will serve.",
        change.has_time ? "time" : "copies", percent_text(parts.least), percent_text(parts.most)));
  }
  add_bound(report, cautions);
  if (!after.at("is_exact").get<bool>()) {
    cautions.push_back("Copies are lower bounds: pair counts do not determine them.");
  }
  if (!change.has_time && !is_hidden(report)) {
    cautions.push_back(
        "Whether fewer copies make a step faster depends on the links. Give --hidden, "
        "--intermediate and --hardware, or a cluster with device_flop_per_s, to predict times.");
  }
  return cautions;
}

}  // namespace

Json answer_json(const Json& report) {
  const Change change = change_of(report);
  const auto reasons = reasons_against(report, change);
  return {{"is_advised", reasons.empty()},
          {"sentence", sentence(report, change, reasons)},
          {"reasons", reasons},
          {"cautions", cautions_of(report, change)}};
}

}  // namespace c2r
