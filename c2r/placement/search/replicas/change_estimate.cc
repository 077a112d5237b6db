// Turns the tables of served slots into changes of the energy.
#include "c2r/placement/search/replicas/change_estimate.h"

#include <algorithm>
#include <limits>

namespace c2r {

double ChangeEstimate::of_swap(const SearchEnergy& energy, std::span<const std::int64_t> loads,
                               std::int32_t a, std::int32_t b) {
  const ServedTables& tables = state_.tables();
  const auto loads_a = tables.loads(a), loads_b = tables.loads(b);
  shifts_.clear();
  for (std::size_t s = 0; s < loads_a.size(); ++s) {
    shift(s, tables.rank_of(a), loads_b[s] - loads_a[s]);
    shift(s, tables.rank_of(b), loads_a[s] - loads_b[s]);
  }
  return change(energy, loads, tables.swap_delta(a, b));
}

double ChangeEstimate::of_change(const SearchEnergy& energy, std::span<const std::int64_t> loads,
                                 std::int32_t slot, std::int32_t expert) {
  const ServedTables& tables = state_.tables();
  const std::int32_t rank = tables.rank_of(slot);
  const auto old = static_cast<std::int32_t>(state_.placement().slots.all()[std::size_t(slot)]);
  double least = std::numeric_limits<double>::infinity();
  ServedTables::Copies copies;
  std::int32_t heir = rank;  // serves the tokens that the slot loses
  for (const std::uint16_t host : state_.hosts_of(old)) {
    if (host == rank) continue;
    const ServedTables::Copies moved = tables.move_delta(slot, host);
    const double cost = energy.cost(moved.rank, moved.node);
    if (cost < least) least = cost, copies = moved, heir = host;
  }
  std::int32_t source = -1;  // the slot that loses tokens to this one
  for (const std::uint16_t host : state_.hosts_of(expert)) {
    const std::int32_t other = tables.slot_of(expert, host);
    if (source < 0 || tables.loads(other)[0] > tables.loads(source)[0]) source = other;
  }
  const ServedTables::Copies gain = tables.gain(expert, rank);
  copies.rank -= gain.rank, copies.node -= gain.node;
  const auto lost = tables.loads(slot), at_source = tables.loads(source);
  const auto all = static_cast<double>(at_source[0]);
  const double share = all == 0 ? 0 : std::min(1.0, static_cast<double>(gain.rank) / all);
  shifts_.clear();
  for (std::size_t s = 0; s < lost.size(); ++s) {
    const auto won = static_cast<std::int64_t>(share * static_cast<double>(at_source[s]));
    shift(s, rank, won - lost[s]);
    shift(s, heir, lost[s]);
    shift(s, tables.rank_of(source), -won);
  }
  return change(energy, loads, copies);
}

void ChangeEstimate::shift(std::size_t scenario, std::int32_t rank, std::int64_t load) {
  const std::size_t place = scenario * state_.loads().size() + static_cast<std::size_t>(rank);
  const auto known = std::ranges::find(shifts_, place, &Shift::place);
  if (known == shifts_.end()) {
    shifts_.push_back({place, load});
  } else {
    known->load += load;
  }
}

double ChangeEstimate::change(const SearchEnergy& energy, std::span<const std::int64_t> loads,
                              const ServedTables::Copies& copies) const {
  const double before = energy.cost(state_.rank_copies(), state_.node_copies());
  const double step = energy.cost(copies.rank, copies.node);
  const auto excess = [](double value, double bound) { return std::max(0.0, value - bound); };
  double change = energy.copy_scale * step +
                  energy.cost_penalty *
                      (excess(before + step, energy.max_cost) - excess(before, energy.max_cost));
  double highest = 0;
  for (const Shift& shift : shifts_) {
    const auto load = static_cast<double>(loads[shift.place]);
    const double shifted = load + static_cast<double>(shift.load);
    change +=
        energy.load_penalty * (excess(shifted, energy.max_load) - excess(load, energy.max_load));
    highest = std::max(highest, shifted);
  }
  if (energy.imbalance_scale > 0) {  // a fall of the largest load is not looked for
    change += energy.imbalance_scale *
              excess(highest, static_cast<double>(std::ranges::max(loads))) / energy.mean_load;
  }
  return change;
}

}  // namespace c2r
