// Writes intervals of savings for people and for programs.
#include "c2r/report/savings.h"

#include <fmt/format.h>

#include <cmath>

namespace c2r {

std::string interval_text(const Interval& interval) {
  const auto percent = [](double share) {
    return fmt::format("{:.1f}", std::round(1000 * share) / 10 + 0.0);  // + 0.0: "0.0", not "-0.0"
  };
  const std::string least = percent(interval.least), most = percent(interval.most);
  return least == most ? most + " %" : least + " to " + most + " %";
}

std::string savings_line(const std::string& name, const std::optional<SavedIntervals>& saved) {
  if (!saved) return "";
  std::string text = fmt::format("{} saves {} of the copies", name, interval_text(saved->copies));
  if (saved->time) text += fmt::format(" and {} of the time", interval_text(*saved->time));
  text +=
      fmt::format(" (95 % of {} resamples of {} sequences)\n", kNumResamples, saved->num_sequences);
  if (saved->num_sequences < kFewSequences) {
    text += fmt::format("few sequences: other texts may differ more; record {} or more\n",
                        kFewSequences);
  }
  return text;
}

Json savings_json(const SavedIntervals& saved) {
  const auto pair = [](const Interval& interval) { return Json{interval.least, interval.most}; };
  return {{"num_sequences", saved.num_sequences},
          {"num_blocks", saved.num_blocks},
          {"num_resamples", kNumResamples},
          {"saved_copies", pair(saved.copies)},
          {"saved_time", saved.time ? pair(*saved.time) : Json(nullptr)}};
}

}  // namespace c2r
