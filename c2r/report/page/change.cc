// Computes what a plan saves on all counted tokens, in the parts of the trace and over resamples.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/change_internal.h"
#include "c2r/report/page/report_data.h"
#include "c2r/report/savings.h"

namespace c2r::internal {
namespace {

SavedInParts saved_in_parts(const Json& parts, const char* key_before, const char* key_after) {
  std::vector<double> shares = {};
  for (const Json& part : parts) {
    shares.push_back(
        saved_share(part.at(key_before).get<double>(), part.at(key_after).get<double>()));
  }
  if (shares.empty()) return {};
  return {.least = std::ranges::min(shares),
          .most = std::ranges::max(shares),
          .num_parts = std::ssize(shares),
          .num_worse = std::ranges::count_if(shares, [](double share) { return share < 0; }),
          .is_last_worse = shares.back() < 0};
}

double link_cost_of(const Json& step, double node_weight) {
  return mean_of(step, "wire_copies_per_token") +
         (node_weight - 1) * mean_of(step, "inter_node_copies_per_token");
}

// The part of a trace in "NAME, PART", if the trace is called `name`; all of it for "NAME".
std::optional<SequencePart> part_in(std::string_view input, std::string_view name) {
  if (input == name) return SequencePart::kAll;
  if (!input.starts_with(name) || !input.substr(name.size()).starts_with(", ")) return {};
  const std::string_view word = input.substr(name.size() + 2);
  for (const SequencePart part : kSequenceParts) {
    if (word == name_of(part)) return part;
  }
  return {};
}

}  // namespace

double saved_share(double before, double after) {
  return before > 0 ? 1 - after / before : 0;
}

Change change_of(const Json& report) {
  const Json &before = step_before(report), &after = step_after(report),
             &parts = report.at("drift");
  const double node_weight = node_copy_weight(cluster_of(report));
  Change change{
      .copies = saved_share(mean_of(before, "wire_copies_per_token"),
                            mean_of(after, "wire_copies_per_token")),
      .link_cost = saved_share(link_cost_of(before, node_weight), link_cost_of(after, node_weight)),
      .has_time = !before.at("predicted_layer_time_s").empty(),
      .copies_in_parts = saved_in_parts(parts, "before", "after")};
  if (change.has_time) {
    change.time = saved_share(mean_of(before, "predicted_layer_time_s"),
                              mean_of(after, "predicted_layer_time_s"));
    change.time_in_parts = saved_in_parts(parts, "time_before_s", "time_after_s");
  }
  return change;
}

std::optional<Interval> resampled_interval(const Json& report, const char* what) {
  const Json* const resampled = json_find(report, "resampled");
  const Json* const ends = resampled == nullptr ? nullptr : json_find(*resampled, what);
  if (ends == nullptr) return std::nullopt;
  return Interval{ends->at(0).get<double>(), ends->at(1).get<double>()};
}

Cluster cluster_of(const Json& report) {
  return cluster_from_json(report.at("cluster"), "the report");
}

bool has_two_kinds_of_links(const Json& report) {
  const Cluster cluster = cluster_of(report);
  return cluster.num_nodes > 1 && cluster.ranks_per_node > 1;
}

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

bool is_fitted_on_counted(const Json& report) {
  const auto name = report.at("trace").at("name").get<std::string>();
  const auto counted = parse_sequence_part(report.at("trace").at("part").get<std::string>());
  return std::ranges::any_of(report.at("plan").at("fitted_on"), [&](const Json& input) {
    const auto fitted = part_in(input.get<std::string>(), name);
    return fitted && overlap(*fitted, counted);
  });
}

std::string percent_text(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::string saving_text(const Interval& saved, std::string_view noun) {
  if (saved.least >= 0) return fmt::format("saves {} of the {}", interval_text(saved), noun);
  if (saved.most <= 0) {
    return fmt::format("needs {} more {}", interval_text({-saved.most, -saved.least}), noun);
  }
  return fmt::format("needs from {} more to {} {} {}", percent_text(-saved.least),
                     percent_text(saved.most), noun == "copies" ? "fewer" : "less", noun);
}

}  // namespace c2r::internal
