// Makes the row plans of a batch: each rank lists its copies for the others, the lists are
// exchanged, first between nodes in per-node mode, and both sides number their rows by them.
#include <algorithm>
#include <limits>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/core/fingerprint.h"
#include "c2r/dispatch/rows/make_row_plans_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

std::uint64_t fingerprint_of(const Placement& placement, const DispatchOptions& options) {
  Fingerprint hash;
  hash.add(placement.num_experts);
  hash.add(placement.slots.cols());
  for (const ExpertId e : placement.slots.all()) hash.add(e);
  hash.add(options.traffic.cluster.num_nodes);
  hash.add(options.traffic.cluster.ranks_per_node);
  hash.add(options.traffic.copy_mode);
  hash.add(options.traffic.replica_rule);
  hash.add(options.traffic.seed);
  hash.add(options.row_type);
  hash.add(options.sums_before_return);
  return hash.value();
}

void check_choices(const RoutingTable& table, MatrixView<const ExpertId> topk_idx,
                   MatrixView<const float> topk_weights, const std::string& label) {
  C2R_REQUIRE(topk_idx.rows() == topk_weights.rows() && topk_idx.cols() == topk_weights.cols(),
              kInvalidArgument, "{}: topk_idx is {}x{}, but topk_weights is {}x{}", label,
              topk_idx.rows(), topk_idx.cols(), topk_weights.rows(), topk_weights.cols());
  C2R_REQUIRE(topk_idx.cols() <= kMaxTopK, kInvalidArgument, "{}: top_k is {}, but at most {}",
              label, topk_idx.cols(), kMaxTopK);
  C2R_REQUIRE(topk_idx.rows() * std::max<std::int64_t>(1, topk_idx.cols()) <=
                  std::numeric_limits<std::int32_t>::max(),
              kInvalidArgument, "{}: {} tokens in one batch are too many", label, topk_idx.rows());
  const auto invalid = find_invalid_choice(topk_idx, table.num_experts);
  if (!invalid) return;
  C2R_REQUIRE(invalid->first_column, kInvalidArgument,
              "{}: token {} chose expert {}, but there are {}", label, invalid->token,
              invalid->expert, table.num_experts);
  C2R_THROW(kInvalidArgument, "{}: token {} chose expert {} twice", label, invalid->token,
            invalid->expert);
}

// [num_tokens, top_k], kNoRank where there is no choice.
Matrix<RankId> serve(RoutingTable& table, MatrixView<const ExpertId> topk_idx,
                     std::int64_t first_token) {
  Matrix<RankId> served_by(topk_idx.rows(), topk_idx.cols());
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    table.chooser.choose(topk_idx.row(t), table.rank, first_token + t, served_by.row(t));
  }
  return served_by;
}

// Where a choice is sent, and its slot there: of the rank, or of the relay's node.
struct Target {
  RankId to;
  std::uint16_t slot = 0;
};

Target target_of(const RoutingTable& table, RankId serving, ExpertId expert) {
  const std::uint16_t slot =
      table.slot_of(std::int64_t(index(serving)), std::int64_t(index(expert)));
  const Cluster& cluster = table.options.traffic.cluster;
  const std::int32_t node = cluster.node_of(serving);
  if (table.relays.empty() || node == cluster.node_of(table.rank)) return {serving, slot};
  const std::int32_t place = std::int32_t(serving) % cluster.ranks_per_node;
  return {cluster.peer_on(node, table.rank),
          static_cast<std::uint16_t>(place * table.slots_per_rank + slot)};
}

// One batch's choices, and who serves them.
struct BatchChoices {
  MatrixView<const ExpertId> topk_idx;   // [num_tokens, top_k]
  MatrixView<const float> topk_weights;  // the same
  MatrixView<const RankId> served_by;    // the same

  Target target(const RoutingTable& table, std::int64_t t, std::int64_t k) const {
    return target_of(table, served_by(t, k), topk_idx(t, k));
  }
  BatchChoices rows(std::int64_t begin, std::int64_t end) const {
    return {topk_idx.rows(begin, end), topk_weights.rows(begin, end), served_by.rows(begin, end)};
  }
};

// Fills the lists of one batch, and numbers its rows by them.
class RowPlanMaker {
 public:
  RowPlanMaker(const RoutingTable& table, std::int64_t num_tokens, std::int64_t top_k)
      : table_(table),
        out_(std::size_t(table.options.traffic.cluster.ep_size())),
        in_(out_.size()),
        out_choices_(out_.size()) {
    plan_.rank = table.rank;
    plan_.num_tokens = num_tokens;
    plan_.top_k = top_k;
    plan_.return_offsets.push_back(0);
    plan_.returns_choices = !table.options.sums_before_return;
    plan_.separates_own = table.separates_own();
  }

  // One copy for each choice, ordered by rank, slot and token.
  void add_choices(const BatchChoices& choices);
  // One copy for each target.
  void add_tokens(const BatchChoices& choices);
  // What has come for the other ranks of the node.
  void add_relayed();
  ListPair lists() { return {out_, in_}; }
  RowPlan finish(const std::string& label);

 private:
  // One row that comes back for an item: number idx of what returns from `from`.
  struct Return {
    RankId from;
    std::int32_t idx = 0;
    float weight = 1;
  };

  void add_choice(std::int32_t item, std::int32_t choice, const Target& target, float weight);
  void finish_item();
  void number_sent_rows();
  void number_received_rows();
  void number_returns();
  template <class IsInPart>
  std::vector<std::int64_t> place_rows(std::int64_t first, const IsInPart& is_in_part);

  const RoutingTable& table_;
  std::vector<CopyList> out_, in_;                        // [ep_size]
  std::vector<std::vector<std::int32_t>> out_choices_;    // [ep_size], of each choice of out_[r]
  std::vector<std::vector<std::int32_t>> rows_;           // [ep_size], of each choice of in_[r]
  std::vector<std::pair<RankId, std::int32_t>> relayed_;  // relay and copy of each relayed item
  std::vector<Return> returns_;                           // by plan_.return_offsets
  RowPlan plan_;
};

void RowPlanMaker::add_choices(const BatchChoices& choices) {
  const std::int64_t num_tokens = choices.topk_idx.rows(), top_k = choices.topk_idx.cols();
  Matrix<std::int32_t> next(std::ssize(out_), std::int64_t{table_.slots_per_rank} + 1);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      if (choices.topk_idx(t, k) == kNoExpert) continue;
      const Target target = choices.target(table_, t, k);
      ++next(std::int64_t(index(target.to)), target.slot + 1);
    }
  }
  for (std::size_t r = 0; r < out_.size(); ++r) {
    const auto counts = next.row(std::int64_t(r));
    std::partial_sum(counts.begin(), counts.end(), counts.begin());
    CopyList& list = out_[r];
    list.item.resize(std::size_t(counts.back()));
    list.slot.resize(list.item.size());
    list.num_choices.assign(list.item.size(), 1);
    out_choices_[r].resize(list.item.size());
  }
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      if (choices.topk_idx(t, k) == kNoExpert) continue;
      const Target target = choices.target(table_, t, k);
      const std::int32_t idx = next(std::int64_t(index(target.to)), target.slot)++;
      out_[index(target.to)].item[std::size_t(idx)] = static_cast<std::int32_t>(t);
      out_[index(target.to)].slot[std::size_t(idx)] = target.slot;
      out_choices_[index(target.to)][std::size_t(idx)] = static_cast<std::int32_t>(t * top_k + k);
      returns_.push_back({target.to, idx, choices.topk_weights(t, k)});
    }
    plan_.return_offsets.push_back(std::ssize(returns_));
  }
}

void RowPlanMaker::add_choice(std::int32_t item, std::int32_t choice, const Target& target,
                              float weight) {
  CopyList& list = out_[index(target.to)];
  const bool is_new = list.add(item, target.slot, weight);
  out_choices_[index(target.to)].push_back(choice);
  if (plan_.returns_choices) {
    returns_.push_back({target.to, static_cast<std::int32_t>(std::ssize(list.slot) - 1), weight});
  } else if (is_new) {
    returns_.push_back({target.to, static_cast<std::int32_t>(list.num_copies() - 1)});
  }
}

// Sums that come back from ranks are added in the order of the ranks.
void RowPlanMaker::finish_item() {
  if (!plan_.returns_choices) {
    const auto begin = returns_.begin() + plan_.return_offsets.back();
    std::sort(begin, returns_.end(),
              [](const Return& a, const Return& b) { return a.from < b.from; });
  }
  plan_.return_offsets.push_back(std::ssize(returns_));
}

void RowPlanMaker::add_tokens(const BatchChoices& choices) {
  const std::int64_t top_k = choices.topk_idx.cols();
  for (std::int64_t t = 0; t < choices.topk_idx.rows(); ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      if (choices.topk_idx(t, k) == kNoExpert) continue;
      add_choice(static_cast<std::int32_t>(t), static_cast<std::int32_t>(t * top_k + k),
                 choices.target(table_, t, k), choices.topk_weights(t, k));
    }
    finish_item();
  }
}

void RowPlanMaker::add_relayed() {
  const std::int32_t first_rank = std::int32_t(table_.group.front());
  auto item = static_cast<std::int32_t>(plan_.num_tokens);
  auto relayed_choice = static_cast<std::int32_t>(plan_.num_tokens * plan_.top_k);
  for (const RankId relay : table_.relays) {
    const CopyList& list = in_[index(relay)];
    std::size_t choice = 0;
    for (std::int32_t idx = 0; idx < std::int32_t(list.num_copies()); ++idx, ++item) {
      relayed_.emplace_back(relay, idx);
      for (int n = list.num_choices[std::size_t(idx)]; n > 0; --n, ++choice) {
        const std::int32_t node_slot = list.slot[choice];
        add_choice(item, relayed_choice++,
                   {RankId{first_rank + node_slot / table_.slots_per_rank},
                    static_cast<std::uint16_t>(node_slot % table_.slots_per_rank)},
                   list.weight[choice]);
      }
      finish_item();
    }
  }
}

void RowPlanMaker::number_sent_rows() {
  plan_.send_offsets.assign(1, 0);
  plan_.send_choice_offsets.assign(1, 0);
  for (std::size_t r = 0; r < out_.size(); ++r) {
    plan_.send_item.insert(plan_.send_item.end(), out_[r].item.begin(), out_[r].item.end());
    plan_.send_choice.insert(plan_.send_choice.end(), out_choices_[r].begin(),
                             out_choices_[r].end());
    plan_.send_offsets.push_back(std::ssize(plan_.send_item));
    plan_.send_choice_offsets.push_back(std::ssize(plan_.send_choice));
  }
}

// Gives the choices of the ranks for which `is_in_part` rows by slot, from row `first` on.
template <class IsInPart>
std::vector<std::int64_t> RowPlanMaker::place_rows(std::int64_t first, const IsInPart& is_in_part) {
  std::vector<std::int64_t> offsets(std::size_t(table_.slots_per_rank) + 1);
  offsets[0] = first;
  for (const RankId src : table_.group) {
    if (!is_in_part(src)) continue;
    for (const std::uint16_t slot : in_[index(src)].slot) ++offsets[slot + std::size_t{1}];
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  std::vector<std::int64_t> next(offsets.begin(), offsets.end() - 1);
  for (const RankId src : table_.group) {
    if (!is_in_part(src)) continue;
    auto& rows = rows_[index(src)];
    rows.reserve(in_[index(src)].slot.size());
    for (const std::uint16_t slot : in_[index(src)].slot) {
      rows.push_back(static_cast<std::int32_t>(next[slot]++));
    }
  }
  return offsets;
}

// Copies of ranks outside the group have no rows here: they are forwarded.
void RowPlanMaker::number_received_rows() {
  rows_.resize(in_.size());
  const auto is_own = [&](RankId src) { return plan_.separates_own && src == table_.rank; };
  plan_.slot_offsets = place_rows(0, [&](RankId src) { return !is_own(src); });
  plan_.own_slot_offsets = place_rows(plan_.slot_offsets.back(), is_own);
  plan_.recv_offsets.assign(1, 0);
  plan_.recv_choice_offsets.assign(1, 0);
  plan_.choice_offsets.assign(1, 0);
  if (table_.options.traffic.copy_mode != CopyMode::kPerExpert) {
    plan_.row_weight.resize(std::size_t(plan_.num_rows()));
  }
  for (std::size_t r = 0; r < in_.size(); ++r) {
    const CopyList& list = in_[r];
    const bool has_rows = !rows_[r].empty();
    for (const std::uint8_t num_choices : list.num_choices) {
      plan_.choice_offsets.push_back(plan_.choice_offsets.back() + (has_rows ? num_choices : 0));
    }
    plan_.choice_row.insert(plan_.choice_row.end(), rows_[r].begin(), rows_[r].end());
    for (std::size_t choice = 0; has_rows && choice < list.weight.size(); ++choice) {
      plan_.row_weight[std::size_t(rows_[r][choice])] = list.weight[choice];
    }
    plan_.recv_offsets.push_back(plan_.recv_offsets.back() + list.num_copies());
    plan_.recv_choice_offsets.push_back(plan_.recv_choice_offsets.back() + std::ssize(list.slot));
  }
}

void RowPlanMaker::number_returns() {
  const bool has_weights =
      plan_.returns_choices || table_.options.traffic.copy_mode == CopyMode::kPerExpert;
  const auto& offsets = plan_.returns_choices ? plan_.send_choice_offsets : plan_.send_offsets;
  for (const auto& [from, idx, weight] : returns_) {
    plan_.return_row.push_back(static_cast<std::int32_t>(offsets[index(from)] + idx));
    if (has_weights) plan_.return_weight.push_back(weight);
  }
  for (const auto& [relay, idx] : relayed_) {
    plan_.relay_row.push_back(static_cast<std::int32_t>(plan_.recv_offsets[index(relay)] + idx));
  }
}

RowPlan RowPlanMaker::finish(const std::string& label) {
  std::int64_t num_choices = 0;
  for (const CopyList& list : in_) num_choices += std::ssize(list.slot);
  C2R_REQUIRE(num_choices <= std::numeric_limits<std::int32_t>::max(), kTransport,
              "{}: {} rows in one batch are too many", label, num_choices);
  number_sent_rows();
  number_received_rows();
  number_returns();
  return std::move(plan_);
}

}  // namespace

RoutingTable::RoutingTable(const Transport& transport, const Placement& placement,
                           const DispatchOptions& dispatch_options)
    : options(dispatch_options),
      rank(transport.rank()),
      chooser(placement, dispatch_options.traffic),
      num_experts(placement.num_experts),
      slots_per_rank(placement.slots_per_rank()),
      slot_of(placement.ep_size(), placement.num_experts),
      fingerprint(fingerprint_of(placement, dispatch_options)) {
  const Cluster& cluster = options.traffic.cluster;
  C2R_REQUIRE(cluster.ep_size() == transport.ep_size(), kInvalidArgument,
              "the cluster has {}x{} ranks, but {} are running", cluster.num_nodes,
              cluster.ranks_per_node, transport.ep_size());
  C2R_REQUIRE(options.traffic.copy_mode != CopyMode::kAllGather, kInvalidArgument,
              "tokens are sent per-expert, per-rank or per-node; not all-gather");
  C2R_REQUIRE(options.sums_before_return || options.traffic.copy_mode != CopyMode::kPerNode,
              kInvalidArgument, "per-node, rows can come back only as sums");
  for (std::int32_t r = 0; r < placement.ep_size(); ++r) {
    for (std::int32_t slot = 0; slot < slots_per_rank; ++slot) {
      const ExpertId expert = placement.slots(r, slot);
      if (expert != kNoExpert) {
        slot_of(r, std::int64_t(index(expert))) = static_cast<std::uint16_t>(slot);
      }
    }
  }
  const bool is_per_node = options.traffic.copy_mode == CopyMode::kPerNode;
  const std::int32_t own_node = cluster.node_of(rank);
  for (std::int32_t r = 0; r < cluster.ep_size(); ++r) {
    if (!is_per_node || cluster.node_of(RankId{r}) == own_node) group.push_back(RankId{r});
  }
  for (std::int32_t node = 0; is_per_node && node < cluster.num_nodes; ++node) {
    if (node != own_node) relays.push_back(cluster.peer_on(node, rank));
  }
  C2R_REQUIRE(relays.empty() || std::ssize(group) * slots_per_rank <= 1 << 16, kUnsupported,
              "a node of {} ranks with {} slots each; per-node dispatch knows {} slots a node",
              group.size(), slots_per_rank, 1 << 16);
}

std::vector<RowPlan> make_row_plans(Transport& transport, RoutingTable& table,
                                    MatrixView<const ExpertId> topk_idx,
                                    MatrixView<const float> topk_weights, std::int64_t first_token,
                                    std::int32_t num_chunks, const std::string& label) {
  check_choices(table, topk_idx, topk_weights, label);
  const Matrix<RankId> served_by = serve(table, topk_idx, first_token);
  const BatchChoices choices{topk_idx, topk_weights, MatrixView<const RankId>(served_by)};
  const bool is_per_expert = table.options.traffic.copy_mode == CopyMode::kPerExpert;
  const std::int64_t num_tokens = topk_idx.rows();
  std::vector<RowPlanMaker> makers;
  std::vector<ListPair> lists;
  makers.reserve(std::size_t(num_chunks)), lists.reserve(std::size_t(num_chunks));
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const std::int64_t begin = num_tokens * chunk / num_chunks,
                       end = num_tokens * (chunk + 1) / num_chunks;
    RowPlanMaker& maker = makers.emplace_back(table, end - begin, topk_idx.cols());
    if (is_per_expert) maker.add_choices(choices.rows(begin, end));
    if (!is_per_expert) maker.add_tokens(choices.rows(begin, end));
  }
  for (RowPlanMaker& maker : makers) lists.push_back(maker.lists());
  if (!table.relays.empty()) {
    const auto slots_per_node = std::int32_t(table.group.size()) * table.slots_per_rank;
    exchange_lists(transport, table.relays, {table.fingerprint, slots_per_node}, lists,
                   label + " between nodes");
    for (RowPlanMaker& maker : makers) maker.add_relayed();
  }
  (is_per_expert ? exchange_slot_counts : exchange_lists)(
      transport, table.group, {table.fingerprint, table.slots_per_rank}, lists, label);
  std::vector<RowPlan> plans;
  plans.reserve(makers.size());
  for (RowPlanMaker& maker : makers) plans.push_back(maker.finish(label));
  return plans;
}

}  // namespace c2r
