// Collects distinct token sets in a hash table and sorts them in the end.
#include "c2r/placement/token_sets.h"

#include <algorithm>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

constexpr std::uint16_t kNoKey = 0xffff;  // pads a key; sorts behind every expert

std::uint64_t hash_of(std::span<const std::uint16_t> key) {
  std::uint64_t hash = 0;
  for (const std::uint16_t e : key) hash = (hash ^ e) * 0x9e3779b97f4a7c15u;
  return mix_bits(hash);
}

void check_scenarios(const TokenSets& sets) {
  if (sets.multiplicity_in.cols() == 0) return;
  C2R_REQUIRE(sets.multiplicity_in.rows() == sets.num_sets(), kInvalidArgument,
              "multiplicities by scenario are of {} token sets, but there are {}",
              sets.multiplicity_in.rows(), sets.num_sets());
  std::vector<std::int64_t> choices(std::size_t(sets.multiplicity_in.cols()));
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    const auto in = sets.multiplicity_in.row(set);
    const auto size =
        std::ranges::count_if(sets.experts.row(set), [](ExpertId e) { return e != kNoExpert; });
    std::int64_t sum = 0;
    for (std::size_t scenario = 0; scenario < in.size(); ++scenario) {
      sum += in[scenario];
      choices[scenario] += in[scenario] * size;
    }
    C2R_REQUIRE(std::ranges::min(in) >= 0 && sum == at(sets.multiplicity, set), kInvalidArgument,
                "token set {} has the multiplicity {}, but {} in all scenarios", set,
                at(sets.multiplicity, set), sum);
  }
  const auto idle = std::ranges::find(choices, 0);
  C2R_REQUIRE(idle == choices.end(), kInvalidArgument, "no token of scenario {} chose an expert",
              idle - choices.begin());
}

}  // namespace

void check_token_sets(const TokenSets& sets) {
  C2R_REQUIRE(0 <= sets.num_experts && sets.num_experts <= kMaxExperts &&
                  sets.top_k() <= kMaxTopK && std::ssize(sets.multiplicity) == sets.num_sets(),
              kInvalidArgument,
              "token sets are [{}, {}] of {} experts with {} multiplicities, but must be "
              "[num_sets, up to {}] of up to {} experts with one multiplicity a set",
              sets.num_sets(), sets.top_k(), sets.num_experts, sets.multiplicity.size(), kMaxTopK,
              kMaxExperts);
  std::int64_t num_left = sets.num_tokens;
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    const std::int64_t multiplicity = at(sets.multiplicity, set);
    C2R_REQUIRE(1 <= multiplicity && multiplicity <= num_left, kInvalidArgument,
                "token set {} has the multiplicity {}, but must have at least 1, and all sets "
                "together no more than the {} tokens",
                set, multiplicity, sets.num_tokens);
    num_left -= multiplicity;
    std::int32_t last = -1;
    for (const ExpertId e : sets.experts.row(set)) {
      const auto expert = static_cast<std::int32_t>(e);
      const bool is_next = last < expert && expert < sets.num_experts;
      C2R_REQUIRE(is_next || e == kNoExpert, kInvalidArgument,
                  "token set {} names expert {}, but must name experts below {}, ascending, then "
                  "-1",
                  set, expert, sets.num_experts);
      last = e == kNoExpert ? sets.num_experts : expert;
    }
  }
  check_scenarios(sets);
}

TokenSetBuilder::TokenSetBuilder(std::int32_t num_experts, std::int32_t top_k,
                                 std::int64_t num_scenarios)
    : num_experts_(num_experts),
      top_k_(top_k),
      has_scenarios_(num_scenarios > 0),
      num_counts_(std::max<std::int64_t>(num_scenarios, 1)),
      table_(1024, -1) {
  C2R_REQUIRE(num_scenarios >= 0, kInvalidArgument, "there cannot be {} scenarios", num_scenarios);
  C2R_REQUIRE(1 <= top_k && top_k <= num_experts && top_k <= kMaxTopK && num_experts <= kMaxExperts,
              kInvalidArgument,
              "token sets need 1 <= top_k <= num_experts, top_k up to {} and num_experts up to {}, "
              "not top_k {} of {} experts",
              kMaxTopK, kMaxExperts, top_k, num_experts);
}

void TokenSetBuilder::add(MatrixView<const ExpertId> topk_idx, std::int64_t scenario) {
  C2R_ASSERT(0 <= scenario && scenario < num_counts_);
  check_topk_idx(topk_idx, num_experts_, top_k_);
  std::vector<std::uint16_t> key(static_cast<std::size_t>(top_k_));
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    ++num_tokens_;
    std::size_t size = 0;
    for (const ExpertId e : topk_idx.row(t)) {
      if (e == kNoExpert) continue;
      const auto id = static_cast<std::int32_t>(e);
      std::size_t at = size++;  // insertion sort: keys are short
      for (; at > 0 && key[at - 1] > id; --at) key[at] = key[at - 1];
      key[at] = static_cast<std::uint16_t>(id);
    }
    if (size == 0) continue;
    std::fill(key.begin() + static_cast<std::ptrdiff_t>(size), key.end(), kNoKey);
    ++at(multiplicity_, find_or_insert(key) * num_counts_ + scenario);
  }
}

std::int64_t TokenSetBuilder::find_or_insert(std::span<const std::uint16_t> key) {
  const std::size_t mask = table_.size() - 1;
  std::size_t at = hash_of(key) & mask;
  for (; table_[at] >= 0; at = (at + 1) & mask) {
    const auto known = keys_.begin() + std::int64_t{table_[at]} * top_k_;
    if (std::equal(key.begin(), key.end(), known)) return table_[at];
  }
  const std::int64_t set = num_sets();
  table_[at] = static_cast<std::int32_t>(set);
  keys_.insert(keys_.end(), key.begin(), key.end());
  multiplicity_.insert(multiplicity_.end(), static_cast<std::size_t>(num_counts_), 0);
  if (num_sets() * 2 > std::ssize(table_)) grow();
  return set;
}

void TokenSetBuilder::grow() {
  table_.assign(table_.size() * 2, -1);
  const std::size_t mask = table_.size() - 1;
  const auto width = static_cast<std::size_t>(top_k_);
  for (std::size_t set = 0; set < static_cast<std::size_t>(num_sets()); ++set) {
    std::size_t at = hash_of(std::span(keys_).subspan(set * width, width)) & mask;
    while (table_[at] >= 0) at = (at + 1) & mask;
    table_[at] = static_cast<std::int32_t>(set);
  }
}

std::span<const std::uint16_t> TokenSetBuilder::key_of(std::int64_t set) const {
  const auto width = static_cast<std::size_t>(top_k_);
  return std::span(keys_).subspan(static_cast<std::size_t>(set) * width, width);
}

std::span<const std::int64_t> TokenSetBuilder::counts_of(std::int64_t set) const {
  const auto width = static_cast<std::size_t>(num_counts_);
  return std::span(multiplicity_).subspan(static_cast<std::size_t>(set) * width, width);
}

std::vector<std::int64_t> TokenSetBuilder::sets_in_order() const {
  // Few keys begin with the same four experts, which compare as one number.
  using Order = std::pair<std::uint64_t, std::int64_t>;
  std::vector<Order> order;
  order.reserve(static_cast<std::size_t>(num_sets()));
  for (std::int64_t set = 0; set < num_sets(); ++set) {
    const auto key = key_of(set);
    std::uint64_t beginning = 0;
    for (std::size_t i = 0; i < 4; ++i) beginning = beginning << 16 | (i < key.size() ? key[i] : 0);
    order.emplace_back(beginning, set);
  }
  std::ranges::sort(order, [&](const Order& a, const Order& b) {
    if (a.first != b.first) return a.first < b.first;
    return std::ranges::lexicographical_compare(key_of(a.second), key_of(b.second));
  });
  std::vector<std::int64_t> sets(order.size());
  std::ranges::transform(order, sets.begin(), &Order::second);
  return sets;
}

TokenSets TokenSetBuilder::finish() const {
  TokenSets sets{.num_experts = num_experts_,
                 .num_tokens = num_tokens_,
                 .experts = {num_sets(), top_k_, kNoExpert}};
  sets.multiplicity.reserve(static_cast<std::size_t>(num_sets()));
  if (has_scenarios_) sets.multiplicity_in = {num_sets(), num_counts_};
  std::int64_t row = 0;
  for (const std::int64_t set : sets_in_order()) {
    auto out = sets.experts.row(row).begin();
    for (const std::uint16_t e : key_of(set)) {
      if (e != kNoKey) *out++ = ExpertId{e};
    }
    const auto counts = counts_of(set);
    sets.multiplicity.push_back(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    if (has_scenarios_) std::ranges::copy(counts, sets.multiplicity_in.row(row).begin());
    ++row;
  }
  return sets;
}

TokenSets collect_token_sets(const Trace& trace, std::int64_t layer,
                             std::span<const TokenRange> ranges) {
  TokenSetBuilder builder(trace.header().num_experts, trace.header().top_k);
  for (const TokenRange& piece : pieces_of(ranges)) {
    builder.add(trace.topk_idx(layer, piece.begin, piece.end));
  }
  return builder.finish();
}

TokenSets collect_token_sets(const Trace& trace, std::int64_t layer,
                             std::span<const std::vector<TokenRange>> scenarios) {
  const TraceHeader& header = trace.header();
  TokenSetBuilder builder(header.num_experts, header.top_k, std::ssize(scenarios));
  for (std::size_t scenario = 0; scenario < scenarios.size(); ++scenario) {
    for (const TokenRange& piece : pieces_of(scenarios[scenario])) {
      builder.add(trace.topk_idx(layer, piece.begin, piece.end), std::int64_t(scenario));
    }
  }
  TokenSets sets = builder.finish();
  check_scenarios(sets);
  return sets;
}

}  // namespace c2r
