// Derives the plan of single choices from the plan of a batch.
#include "c2r/dispatch/rows/row_plan.h"

#include <numeric>

namespace c2r {
namespace {

// Each item is one choice, which was sent once if it is not masked.
void return_each_choice(RowPlan& plan, std::int64_t num_items) {
  plan.return_offsets.assign(std::size_t(num_items) + 1, 0);
  for (const std::int32_t item : plan.send_item) ++plan.return_offsets[std::size_t(item) + 1];
  std::partial_sum(plan.return_offsets.begin(), plan.return_offsets.end(),
                   plan.return_offsets.begin());
  plan.return_row.resize(plan.send_item.size());
  for (std::size_t sent = 0; sent < plan.send_item.size(); ++sent) {
    const auto place = plan.return_offsets[std::size_t(plan.send_item[sent])];
    plan.return_row[std::size_t(place)] = static_cast<std::int32_t>(sent);
  }
}

}  // namespace

RowPlan choice_plan(const RowPlan& plan) {
  RowPlan of_choices{.rank = plan.rank,
                     .num_tokens = plan.num_tokens * plan.top_k,
                     .top_k = 1,
                     .send_offsets = plan.send_choice_offsets,
                     .send_item = plan.send_choice,
                     .recv_offsets = plan.recv_choice_offsets,
                     .choice_row = plan.choice_row,
                     .send_choice_offsets = plan.send_choice_offsets,
                     .send_choice = plan.send_choice,
                     .recv_choice_offsets = plan.recv_choice_offsets,
                     .slot_offsets = plan.slot_offsets,
                     .own_slot_offsets = plan.own_slot_offsets,
                     .separates_own = plan.separates_own};
  of_choices.choice_offsets.assign(1, 0);
  for (std::size_t r = 0; r + 1 < plan.recv_offsets.size(); ++r) {
    // A rank's copies are all for experts of this rank, or all to be forwarded.
    const auto first = std::size_t(plan.recv_offsets[r]),
               last = std::size_t(plan.recv_offsets[r + 1]);
    const bool is_relayed = plan.choice_offsets[first] == plan.choice_offsets[last];
    for (auto c = plan.recv_choice_offsets[r]; c < plan.recv_choice_offsets[r + 1]; ++c) {
      if (is_relayed) of_choices.relay_row.push_back(static_cast<std::int32_t>(c));
      of_choices.choice_offsets.push_back(of_choices.choice_offsets.back() + (is_relayed ? 0 : 1));
    }
  }
  return_each_choice(of_choices, of_choices.num_tokens + of_choices.num_relayed());
  return of_choices;
}

}  // namespace c2r
