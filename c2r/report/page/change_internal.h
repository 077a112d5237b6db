// What the "after" of a report saves of its "before", and the words for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/placement/cluster.h"
#include "c2r/plan/prediction/resample.h"

namespace c2r::internal {

/// What is saved in the parts of the trace, as shares of "before".
struct SavedInParts {
  double least = 0, most = 0;
  std::int64_t num_parts = 0, num_worse = 0;  // worse: less than nothing is saved
  bool is_last_worse = false;
};

/// Savings are shares of "before": 0.25 is a quarter less, -0.1 a tenth more.
struct Change {
  double copies = 0;     // on the wire
  double link_cost = 0;  // copies, where one between nodes counts node_copy_weight()
  bool has_time = false;
  double time = 0;  // 0 unless has_time
  SavedInParts copies_in_parts, time_in_parts;

  /// What decides: time or, where no times are predicted, copies.
  double saved() const { return has_time ? time : copies; }
  const SavedInParts& in_parts() const { return has_time ? time_in_parts : copies_in_parts; }
  std::string_view noun() const { return has_time ? "time" : "copies"; }
};

/// @param report as report_data() makes it, with or without its answer, here and below
Change change_of(const Json& report);

/// @returns 1 - after / before; 0 if `before` is not positive
double saved_share(double before, double after);

/// @param what "saved_copies" or "saved_time"
/// @returns the interval over resampled sequences; nothing if they were not resampled
std::optional<Interval> resampled_interval(const Json& report, const char* what);

Cluster cluster_of(const Json& report);

/// @returns whether links between nodes are slower than links within a node, so that copies do not
///          all count alike
bool has_two_kinds_of_links(const Json& report);

/// @returns the kernel of the engine that the answer is about; null without an engine
const Json* kernel_of_engine(const Json& report);

/// @returns whether the engine's exchange takes no time that a placement could save
bool is_hidden(const Json& report);

/// @returns whether tokens that were counted are among those that the plan was fitted on, as far as
///          the names of the traces tell
bool is_fitted_on_counted(const Json& report);

/// @returns "25.1 %"
std::string percent_text(double share);

/// @param noun "copies" or "time"
/// @returns "saves 10.5 to 14.7 % of the time", "needs 2.9 to 7.1 % more time" or "needs from 2.0 %
///          more to 30.0 % less time"
std::string saving_text(const Interval& saved, std::string_view noun);

}  // namespace c2r::internal
