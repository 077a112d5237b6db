// Sends tokens to the ranks that hold their experts, and brings the weighted results back.
//
//   Dispatcher dispatcher(transport, pool, placement, {.cluster = cluster});  // once for each
//   layer Handle handle = dispatcher.make_handle(idx, weights, 0, "layer 3");     // once for each
//   batch handle.start_dispatch(x); compute_the_shared_expert();               // and handle.poll()
//   now and then handle.dispatch_own(rows);                 // own rows of local slot s at
//   own_offsets()[s] handle.finish_dispatch(rows);              // other ranks' at offsets()[s]
//   compute_the_experts(rows, outputs);
//   handle.start_combine(outputs);
//   handle.combine_own(outputs);
//   handle.finish_combine(sum);
//
// Rows of own tokens for own experts need no other rank: they can be computed while the other rows
// travel, there or back.
//
// Every rank makes the same calls in the same order, also with 0 tokens. A Pipeline makes these
// calls for several chunks of a batch, so that one travels while another is computed.
//
// Who gets a copy is decided by the ReplicaChooser with the own rank as home, and c2r/placement/
// volume.h counts the same copies for each mode. A token's row goes there, per copy:
//   per-expert   once for each choice, in the order of slots (MegaBlocks)
//   per-rank     once for each rank that serves it, and is replicated there
//   per-node     once for each remote node that serves it, to the relay there, which forwards it
//                to each of its ranks that serves it; within the home node as per-rank
// Each copy brings one row back along the same links. Sums are f32 and have a fixed order:
//   per-expert   the home rank adds weight x row in the order of choice
//   per-rank     the serving rank adds weight x row in the order of choice, the home rank adds
//                those sums in the order of ranks
//   per-node     the same, and a relay adds its node's sums in the order of ranks before it sends
//                one row home; the home rank adds nodes in order, and its own node's ranks in order
// Rows that cross the wire are rounded to the row type, there and back; rows that stay are not. So
// f32 rows in per-expert mode give bit for bit what one process gives.
//
// docs/cost_model.md has the messages and bytes, docs/architecture.md the parts: a RowPlan says
// which row goes where, a RowMover moves rows, a Transport carries bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/element.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/dispatch/rows/row_mover.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/replica_rule.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/placement/placement.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// @returns the element type of rows on the wire that is called `name`, "f32" or "bf16"
/// @throws Error(kInvalidArgument), which lists the names
ElementType parse_row_type(std::string_view name);

struct DispatchOptions {
  Cluster cluster;
  CopyMode mode = CopyMode::kPerRank;  // not kAllGather
  ReplicaRule rule = ReplicaRule::kFewestRanks;
  std::uint64_t seed = 0;                     // of the rule
  ElementType row_type = ElementType::kBf16;  // of rows that cross the wire
  /// False, in per-rank mode only: a rank returns a row for each choice, as in per-expert mode, and
  /// the home rank adds them in the order of choice. To measure how many bytes the sums save.
  bool sums_before_return = true;
  /// False: rows of own tokens are among the others, so that all are computed at once. To measure
  /// what is gained by computing them while the others travel.
  bool separates_own = true;
};

class DispatcherState;
class HandleState;

/// Who sends which row where, for one batch of tokens. Serves any number of rounds of dispatch and
/// combine, one after the other. Its dispatcher must outlive it; used by the same thread.
///
/// All waits throw as Exchange::wait(): the message begins with the handle's label and the phase.
class Handle {
 public:
  explicit Handle(std::unique_ptr<HandleState> state);
  Handle(Handle&&) noexcept;
  Handle& operator=(Handle&&) noexcept;
  ~Handle();

  /// Of this home rank.
  std::int64_t num_tokens() const;
  /// The rows to compute here for tokens of other ranks: those of local slot s are [offsets[s],
  /// offsets[s + 1]), by the rank that they come from, then in its order of tokens.
  /// [slots_per_rank + 1]
  std::span<const std::int64_t> offsets() const;
  /// The same for tokens of this rank, which follow: own_offsets[0] is offsets().back(). None if
  /// they are not separated, nor in per-node mode on several nodes, where some come by a relay.
  std::span<const std::int64_t> own_offsets() const;
  /// The (token, expert) choices that this rank computes.
  std::int64_t num_rows() const { return own_offsets().back(); }

  /// Starts to send. @param x [num_tokens, hidden], may be reused at once
  /// Cost: one message for each rank that gets something; copies each row once a copy.
  void start_dispatch(MatrixView<const float> x);
  /// Moves bytes of this dispatcher's exchanges without waiting. True if what this handle has
  /// started is done, so that finishing it waits no more.
  bool poll();
  /// Returns when what this handle has started has arrived and left.
  void wait();
  /// Between start_dispatch() and finish_dispatch().
  /// @param rows [num_rows, hidden], is filled as own_offsets() says
  void dispatch_own(MatrixView<float> rows);
  /// Waits. @param rows [num_rows, hidden], is filled as offsets() says
  void finish_dispatch(MatrixView<float> rows);

  /// Starts to send results back, weighted as the routing says.
  /// @param rows [num_rows, hidden], as offsets() says; may be reused at once
  void start_combine(MatrixView<const float> rows);
  /// The same, but each row is multiplied by its own scale instead of the routing's weight. With
  /// scales of 1 combine is the adjoint of dispatch: <dispatch(x), g> = <x, combine(g)>, but for
  /// rounding.
  /// @param row_scale [num_rows], in the memory of the mover; borrowed until combine_own()
  void start_combine(MatrixView<const float> rows, std::span<const float> row_scale);
  /// Between start_combine() and finish_combine().
  /// @param rows [num_rows, hidden], as own_offsets() says; may be reused at once
  void combine_own(MatrixView<const float> rows);
  /// Waits, and adds each token's result to its row of `sum` [num_tokens, hidden].
  void finish_combine(MatrixView<float> sum);

  /// The weight of each row, as its token's home rank gave it to make_handle(). In mode per-expert
  /// weights stay at home: there, this is collective, waits, and costs one exchange of 4 bytes a
  /// choice. Elsewhere they came with the lists.
  /// @returns [num_rows]
  std::vector<float> row_weights() const;
  /// The same batch with one value for each choice instead of one row for each token. Its "tokens"
  /// are the choices of this handle's tokens, t * top_k + k; its rows are this handle's rows, and
  /// travel in f32. So a dispatch of [num_tokens * top_k, 1] gives each row its choice's value, and
  /// a combine of [num_rows, 1] brings one value of each row home, such as the gradient of the
  /// choice's weight; a masked choice gets nothing. Needs no message to be made.
  /// Its label is this handle's and "choices". Its dispatcher must outlive it, this handle need
  /// not.
  Handle choices() const;

 private:
  std::unique_ptr<HandleState> state_;
};

/// One layer's exchange: its placement, and the replica chooser's memory of earlier tokens. Keeps
/// the send and receive buffers between calls. Used by one thread.
class Dispatcher {
 public:
  /// Rows are in host memory; loops over them run on `pool`.
  /// @param transport,pool must outlive it; as many ranks as the placement and the cluster
  /// @throws Error(kInvalidArgument) if they do not match, or if the mode is kAllGather, or
  ///         per-node and to return rows of single choices
  Dispatcher(Transport& transport, ThreadPool& pool, const Placement& placement,
             const DispatchOptions& options);
  /// Rows are in the memory of `mover`, which x, rows and sums of its handles show. The transport
  /// carries the lists. @param mover must outlive it
  Dispatcher(Transport& transport, RowMover& mover, const Placement& placement,
             const DispatchOptions& options);
  /// Another layer between the same ranks, with the same options. They share buffers, which a model
  /// needs once. Used by the same thread; handles of both may be under way at once.
  Dispatcher(const Dispatcher& other_layer, const Placement& placement);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;
  ~Dispatcher();

  /// Tells each rank what it will get. Collective.
  /// @param topk_idx [num_tokens, top_k], of this rank's own tokens; distinct within a token,
  ///        kNoExpert = none. top_k <= kMaxTopK
  /// @param topk_weights [num_tokens, top_k]
  /// @param first_token the trace row of the first token, for ReplicaRule::kRandom
  /// @param label of all messages and errors: "layer 3"
  /// @throws Error(kInvalidArgument) if a choice is not valid,
  ///         Error(kTransport) if a peer disagrees on the options or sends what is no valid list,
  ///         and as Exchange::wait()
  Handle make_handle(MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights,
                     std::int64_t first_token, std::string label);

  /// The same for a batch in `num_chunks` runs of tokens, as equally long as possible: one handle
  /// for each, and one exchange for all. Each token's result is that of a single handle.
  /// Collective: as many chunks on every rank, which may be more than it has tokens.
  /// @param label the n-th handle's is "layer 3 chunk n"
  std::vector<Handle> make_handles(MatrixView<const ExpertId> topk_idx,
                                   MatrixView<const float> topk_weights, std::int64_t first_token,
                                   std::int32_t num_chunks, const std::string& label);

 private:
  std::unique_ptr<DispatcherState> state_;
};

}  // namespace c2r
