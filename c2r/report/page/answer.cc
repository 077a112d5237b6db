// Decides what the numbers of a report mean for someone who has to load the plan or not.
#include "c2r/report/page/answer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/change_internal.h"
#include "c2r/report/page/explanation.h"
#include "c2r/report/page/report_data.h"
#include "c2r/report/savings.h"

namespace c2r {
namespace {

using internal::Change;
using internal::percent_text;

constexpr double kMuchLessEven = 1.05;
constexpr std::int64_t kManyWorseParts = 3;  // of ten

// "25.1 % less", "3.0 % more".
std::string change_text(double saved) {
  return fmt::format("{} {}", percent_text(std::abs(saved)), saved >= 0 ? "less" : "more");
}

// Why the plan may not fit the traffic of today; empty if few parts are worse, without the last.
std::string drift_reason(const internal::SavedInParts& parts, const char* what) {
  if (!parts.is_last_worse && parts.num_worse < kManyWorseParts) return "";
  return fmt::format("in {} of {} parts of the trace{} {} than before, up to {}", parts.num_worse,
                     parts.num_parts, parts.is_last_worse ? ", the last one included," : "", what,
                     percent_text(-parts.least));
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
  if (change.copies < 0) return "it sends more copies than before";
  if (change.copies == 0 && after >= before) {
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
  const auto interval =
      internal::resampled_interval(report, change.has_time ? "saved_time" : "saved_copies");
  if (change.saved() > 0 && interval && interval->least <= 0) {
    reasons.push_back(fmt::format("over resampled sequences it {}",
                                  internal::saving_text(*interval, change.noun())));
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
  if (internal::is_hidden(report)) {
    return {fmt::format("with {} {}", engine_name(report),
                        internal::kernel_of_engine(report)->at("verdict").get<std::string>())};
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

// What is saved over resampled sequences, behind the sentence that says what is saved.
std::string resampled_sentence(const Json& report, const Change& change) {
  const auto interval = internal::resampled_interval(report, "saved_copies");
  if (change.has_time || !interval) return ".";
  std::string over = fmt::format(" ({} over resampled sequences).", interval_text(*interval));
  if (!internal::has_two_kinds_of_links(report)) return over;
  return fmt::format(". Where a copy between nodes counts as {:.3g} within a node, it is {}{}",
                     node_copy_weight(internal::cluster_of(report)), change_text(change.link_cost),
                     over);
}

std::string traffic_sentence(const Json& report, const Change& change) {
  const Json* const kernel = internal::kernel_of_engine(report);
  if (kernel != nullptr && !internal::is_hidden(report)) {
    const Json &today = kernel->at("today"), &planned = kernel->at("planned");
    const bool is_one_mode = kernel->at("copy_mode") == kernel->at("combine_mode");
    return fmt::format("Your engine ({}) sends {} a token and layer, and {} under this plan: {}{}",
                       engine_name(report), kernel_amount(today), kernel_amount(planned),
                       change_text(internal::saved_share(total_of(today), total_of(planned))),
                       is_one_mode ? resampled_sentence(report, change) : ".");
  }
  const Json& before = step_before(report);
  return fmt::format(
      "In each layer a token sends {} over links where experts are placed in order{}, and {} under "
      "this plan: {}{}",
      amount(before),
      before.at("step") == "deduplication" ? " and a rank gets one copy of a token" : "",
      amount(step_after(report)), change_text(change.copies), resampled_sentence(report, change));
}

// " at 256 tokens a rank"; empty where the batch is all counted tokens.
std::string batch_text(const Json& report) {
  const Json& batch = report.at("batch_tokens");
  if (batch.is_null()) return "";
  const std::int32_t ep_size = internal::cluster_of(report).ep_size();
  return fmt::format(" at {:.6g} tokens a rank", batch.get<double>() / ep_size);
}

std::string time_sentence(const Json& report, const Change& change) {
  if (!change.has_time || internal::is_hidden(report))
    return "";  // times have the exchange in them
  const auto interval = internal::resampled_interval(report, "saved_time");
  return fmt::format(" A layer is predicted to take {} time{}{}.", change_text(change.time),
                     batch_text(report),
                     interval ? fmt::format(" (over resampled sequences it {})",
                                            internal::saving_text(*interval, "time"))
                              : "");
}

std::string sentence(const Json& report, const Change& change,
                     const std::vector<std::string>& reasons) {
  const Json &before = step_before(report), &after = step_after(report);
  std::string text = "This plan is worth loading. ";
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

Json cautions_of(const Json& report, const Change& change) {
  Json cautions = Json::array();
  const Json &trace = report.at("trace"), &after = step_after(report);
  if (internal::is_fitted_on_counted(report)) {
    cautions.push_back(
        "The counted tokens include those that the plan was fitted on, so new tokens may save "
        "less. Fit one part (c2r plan --fit even) and report the other (--on odd).");
  }
  if (trace.at("num_sequences") < kFewSequences) {
    cautions.push_back(fmt::format(
        "Only {} sequences were counted. Routing differs between texts, so a plan needs some {} "
        "sequences at least.",
        trace.at("num_sequences").get<std::int64_t>(), kFewSequences));
  }
  const internal::SavedInParts& parts = change.in_parts();
  if (parts.least < change.saved() / 2) {
    cautions.push_back(fmt::format(
        "The saving varies over the trace: in its parts the plan {}. Record the traffic that it "
        "will serve.",
        internal::saving_text({parts.least, parts.most}, change.noun())));
  }
  add_bound(report, cautions);
  if (!after.at("is_exact").get<bool>()) {
    cautions.push_back("Copies are lower bounds: pair counts do not determine them.");
  }
  if (!change.has_time && !internal::is_hidden(report)) {
    cautions.push_back(
        "Whether fewer copies make a step faster depends on the links. Give --hidden, "
        "--intermediate and --hardware, or a cluster with device_flop_per_s, to predict times.");
  }
  return cautions;
}

}  // namespace

Json answer_json(const Json& report) {
  const Change change = internal::change_of(report);
  const auto reasons = reasons_against(report, change);
  return {{"is_advised", reasons.empty()},
          {"sentence", sentence(report, change, reasons)},
          {"why", why_text(report)},
          {"how_sure", how_sure_text(report)},
          {"reasons", reasons},
          {"cautions", cautions_of(report, change)}};
}

}  // namespace c2r
