// Writes whole sentences from the numbers of a report, for readers who have not used c2r.
#include "c2r/report/page/explanation.h"

#include <fmt/format.h>

#include "c2r/placement/cost/traffic_model.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/change_internal.h"
#include "c2r/report/page/report_data.h"

namespace c2r {
namespace {

// Why the experts of a token are on fewer ranks or nodes; empty if they are not.
std::string reason_text(double before, double after, const char* where) {
  if (after >= before) return "";
  return fmt::format(", which puts experts that the same tokens choose on the same {}", where);
}

std::string resampled_text(const Json& report) {
  const auto copies = internal::resampled_interval(report, "saved_copies");
  if (!copies) return "";
  std::string text = fmt::format(
      " Another recording of the same traffic would have other sequences: in 95 % of {} resamples, "
      "which draw as many of these sequences with replacement, the plan {}",
      report.at("resampled").at("num_resamples").get<std::int64_t>(),
      internal::saving_text(*copies, "copies"));
  if (internal::has_two_kinds_of_links(report)) {
    text += fmt::format(" (one between nodes counts as {:.3g} within a node)",
                        node_copy_weight(internal::cluster_of(report)));
  }
  if (const auto time = internal::resampled_interval(report, "saved_time")) {
    text += " and " + internal::saving_text(*time, "time");
  }
  return text + ".";
}

}  // namespace

std::string why_text(const Json& report) {
  if (internal::is_hidden(report)) return "";
  const Json &before = step_before(report), &after = step_after(report);
  const CopyMode mode = parse_copy_mode(after.at("copy_mode").get<std::string>());
  const auto top_k = report.at("trace").at("top_k").get<std::int64_t>();
  if (mode == CopyMode::kAllGather) {
    return "Every token is sent to every rank, so a placement saves no copies; it can balance the "
           "ranks.";
  }
  if (mode == CopyMode::kPerExpert) {
    return fmt::format(
        "A token is sent once for each of its {} experts. Only an expert on the token's own rank "
        "needs no copy, so a placement saves few copies or none; it can balance the ranks.",
        top_k);
  }
  const bool is_by_node = mode == CopyMode::kPerNode && internal::has_two_kinds_of_links(report);
  const char* const column = is_by_node ? "inter_node_copies_per_token" : "copies_per_token";
  const double mean_before = mean_of(before, column), mean_after = mean_of(after, column);
  if (is_by_node) {
    return fmt::format(
        "A token is sent once to each node that holds some of its {} experts, and forwarded there "
        "to their ranks. Where experts are placed in order, {:.3f} copies of a token cross links "
        "between nodes in the mean, and {:.3f} under the plan{}.",
        top_k, mean_before, mean_after, reason_text(mean_before, mean_after, "node"));
  }
  return fmt::format(
      "A token is sent once to each rank that holds some of its {} experts. Where experts are "
      "placed in order, these are {:.3f} ranks in the mean, and {:.3f} under the plan{}.",
      top_k, mean_before, mean_after, reason_text(mean_before, mean_after, "rank"));
}

std::string how_sure_text(const Json& report) {
  const Json& trace = report.at("trace");
  const internal::Change change = internal::change_of(report);
  const bool is_unseen =
      !report.at("plan").at("fitted_on").empty() && !internal::is_fitted_on_counted(report);
  std::string text = fmt::format("Copies are counted, on {} tokens of {} sequence{}{}.",
                                 trace.at("num_tokens").get<std::int64_t>(),
                                 trace.at("num_sequences").get<std::int64_t>(),
                                 trace.at("num_sequences") == 1 ? "" : "s",
                                 is_unseen ? " that the plan was not fitted on" : "");
  if (internal::is_hidden(report)) return text;
  text += resampled_text(report);
  const internal::SavedInParts& parts = change.in_parts();
  if (parts.num_parts > 1) {
    text += fmt::format(" In the {} parts of the trace it {}", parts.num_parts,
                        internal::saving_text({parts.least, parts.most}, change.noun()));
    text += parts.num_worse > 0 ? fmt::format("; in {} of them more than before.", parts.num_worse)
                                : ".";
  }
  if (change.has_time) {
    text += " Times are predicted from the rates of the devices and links, and are not measured.";
  }
  return text;
}

}  // namespace c2r
