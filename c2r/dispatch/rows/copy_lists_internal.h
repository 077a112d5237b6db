// Lists of the copies that go from one rank to another, and their exchange between the ranks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// The copies that go to, or come from, one rank, in the order in which they travel. Each is for
/// some choices of its token, in their order.
struct CopyList {
  std::vector<std::int32_t> item;         // [num_copies], the row that is sent; sender only
  std::vector<std::uint8_t> num_choices;  // [num_copies], at least 1
  std::vector<std::uint16_t> slot;        // [sum of num_choices], of the receiver, or of its node
  std::vector<float> weight;              // the same; none in per-expert mode

  std::int64_t num_copies() const { return std::ssize(num_choices); }
  /// Adds a choice to the copy of `sent_item`, which is the last one or a new one.
  /// @returns whether it is a new one
  bool add(std::int32_t sent_item, std::uint16_t to_slot, float with_weight);
};

/// The properties in which all ranks must agree before they use each other's lists.
struct ListRules {
  std::uint64_t fingerprint = 0;  // of the placement and the options
  std::int32_t num_slots = 0;     // of a receiver
};

/// The lists of one batch: `out[r]` goes to rank r, `in[r]` is what it sends. [ep_size]
struct ListPair {
  std::span<const CopyList> out;
  std::span<CopyList> in;
};

/// Sends the lists of all batches to each rank of `peers`, which may include this rank, and
/// receives theirs. Every peer calls it with its own peers and the same number of batches.
/// @throws Error(kTransport), naming the rank whose list is not valid for `rules`
///
/// Cost: two exchanges. The first sends each peer 8 bytes, and 16 for each batch; the second, to
/// peers that get copies, 1 byte for each copy and 6 for each of its choices.
void exchange_lists(Transport& transport, std::span<const RankId> peers, const ListRules& rules,
                    std::span<const ListPair> batches, const std::string& label);

/// The same for copies of a single choice each, ordered by slot and without weights.
///
/// Cost: one exchange, which sends each peer 8 bytes, and for each batch 8 for each of its slots.
void exchange_slot_counts(Transport& transport, std::span<const RankId> peers,
                          const ListRules& rules, std::span<const ListPair> batches,
                          const std::string& label);

}  // namespace c2r
