// Which rows a rank sends, computes and returns for one batch: index arrays and nothing else.
//
// A plan is plain data, so a device can upload it as it is. Three kinds of rows are numbered apart:
//   sent rows      copies that leave this rank, by the rank that they go to
//   received rows  copies that come to this rank, by the rank that they come from
//   rows           what the experts compute, one for each choice, by slot
// A sent row carries an *item*: a token of this rank, or, in per-node mode, a copy that this rank
// got as a relay and forwards within its node. Rows that a rank sends to itself are numbered like
// the others, and are received rows of the same rank.
//
// Dispatch writes sent rows, moves them, and spreads received rows over rows. Combine goes
// backwards: it reduces rows to one row for each received row, moves those rows to the ranks that
// the copies came from, and adds the rows that have returned to the tokens' sums.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

struct RowPlan {
  RankId rank;                  // the rank whose plan this is
  std::int64_t num_tokens = 0;  // items [0, num_tokens) are this rank's tokens
  std::int64_t top_k = 0;

  std::vector<std::int64_t> send_offsets;  // [ep_size + 1], sent rows by the rank that they go to
  std::vector<std::int32_t> send_item;     // [num_sent], in [0, num_items)
  std::vector<std::int64_t> recv_offsets;  // [ep_size + 1], received rows by where they come from

  // Received row c is for rows choice_row[choice_offsets[c]] to choice_row[choice_offsets[c + 1]),
  // in the order of the token's choices. None, if it is only to be forwarded.
  std::vector<std::int64_t> choice_offsets;  // [num_received + 1]
  std::vector<std::int32_t> choice_row;      // [num_rows], a permutation of the rows
  std::vector<float> row_weight;  // [num_rows], of the routing; none where weights stay at home

  // Item num_tokens + i is received row relay_row[i]. Ascending; none but in per-node mode.
  std::vector<std::int32_t> relay_row;  // [num_relayed]

  // Combine brings one row back for each copy, or for each choice if `returns_choices`. Rows that
  // leave this rank are numbered as received rows, or as choices; rows that come back are numbered
  // as sent rows, or as the choices of sent rows.
  bool returns_choices = false;
  std::vector<std::int64_t> return_offsets;  // [num_items + 1]
  std::vector<std::int32_t> return_row;      // in the order of the sum, rows that come back
  std::vector<float> return_weight;          // the same; none where all are 1

  // The choices behind the sent and received rows. Choice t * top_k + k is the k-th of token t;
  // num_tokens * top_k + i is the i-th of all choices of relayed items.
  std::vector<std::int64_t> send_choice_offsets;  // [ep_size + 1]
  std::vector<std::int32_t> send_choice;          // [num_sent_choices]
  std::vector<std::int64_t> recv_choice_offsets;  // [ep_size + 1]

  // Rows of local slot s: for tokens of other ranks, then for tokens of this rank, if they are
  // separate. [slots_per_rank + 1]
  std::vector<std::int64_t> slot_offsets, own_slot_offsets;
  bool separates_own = false;

  std::int64_t ep_size() const { return std::ssize(send_offsets) - 1; }
  std::int64_t num_sent() const { return send_offsets.back(); }
  std::int64_t num_received() const { return recv_offsets.back(); }
  std::int64_t num_rows() const { return own_slot_offsets.back(); }
  std::int64_t num_relayed() const { return std::ssize(relay_row); }
};

/// Makes a plan of the same batch with a row for each choice instead of each token: item t * top_k
/// + k is the k-th choice of token t, each row has one copy, and there are no weights. So one value
/// of each choice goes from its home to its row, or back, along the same links.
///
/// @returns a plan whose rows are numbered as those of `plan`
/// Cost: some 40 bytes of memory for each choice.
RowPlan choice_plan(const RowPlan& plan);

}  // namespace c2r
