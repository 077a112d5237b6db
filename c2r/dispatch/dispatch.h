// Dispatch sends tokens to the ranks that hold their experts; combine brings the weighted results
// back.
//
//   // For each layer:
//   Dispatcher dispatcher(transport, pool, placement, {.traffic = {.cluster = cluster}});
//   // For each batch:
//   Handle handle = dispatcher.make_handle(idx, weights, 0, "layer 3");
//   handle.start_dispatch(x);
//   compute_the_shared_expert();   // and call handle.poll() now and then
//   handle.dispatch_own(rows);     // rows of own tokens, at own_offsets()
//   handle.finish_dispatch(rows);  // rows of other ranks' tokens, at offsets()
//   compute_the_experts(rows, outputs);
//   handle.start_combine(outputs);
//   handle.combine_own(outputs);
//   handle.finish_combine(sum);
//
// Rows of own tokens for own experts need no other rank, so they can be computed while the other
// rows travel to their experts or back. Experts that gather their rows, as GroupedGemm does, read
// them where they were received, without a copy: dispatch_own() and finish_dispatch() without an
// argument return them.
//
// Every rank makes the same calls in the same order, also with 0 tokens. A Pipeline makes these
// calls for several chunks of a batch, so that one chunk travels while another is computed.
//
// The ReplicaChooser decides which ranks get a copy of a token, with this rank as the token's home.
// c2r/placement/cost/volume.h counts the same copies for each mode. A token's row is sent:
//   per-expert   once for each choice, in the order of slots (MegaBlocks)
//   per-rank     once to each rank that serves the token, which copies it to its experts
//   per-node     once to each remote node that serves the token, to the relay there, which forwards
//                it to each of its ranks that serves it; within the home node as per-rank
// Each copy brings one row back along the same links. Sums are f32 and have a fixed order:
//   per-expert   the home rank adds weight x row in the order of choice
//   per-rank     the serving rank adds weight x row in the order of choice, and the home rank adds
//                those sums in the order of ranks
//   per-node     as per-rank, but a relay adds the sums of its node in the order of ranks before it
//                sends one row home; the home rank adds nodes in order, and its own node's ranks in
//                order
// Rows that cross the wire are rounded to the row type, in both directions; rows that stay on their
// rank are not. So rows of f32 in per-expert mode give bit for bit what one process gives.
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
#include "c2r/core/gathered_rows.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/dispatch/rows/row_mover.h"
#include "c2r/placement/cost/traffic_model.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/placement/placement.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// @returns the element type of rows on the wire that is called `name`, "f32" or "bf16"
/// @throws Error(kInvalidArgument), which lists the names
ElementType parse_row_type(std::string_view name);

struct DispatchOptions {
  // Not kAllGather. The homes play no part: a token's home is the rank that dispatches it.
  TrafficModel traffic;
  ElementType row_type = ElementType::kBf16;  // of rows that cross the wire
  /// If false, which is for per-rank mode only, a rank returns a row for each choice as in
  /// per-expert mode, and the home rank adds them in the order of choice. Serves to measure how
  /// many bytes the sums save.
  bool sums_before_return = true;
  /// If false, rows of own tokens are among the others, so that all are computed at once. Serves to
  /// measure what is gained by computing own rows while the others travel.
  bool separates_own = true;
};

class DispatcherState;
class HandleState;

/// A handle knows who sends which row where, for one batch of tokens. It serves any number of
/// rounds of dispatch and combine, one after the other. The dispatcher must outlive its handles,
/// and one thread uses them all.
///
/// All waits throw as Exchange::wait(): the message begins with the handle's label and the phase.
/// Calls out of order, or with matrices of another shape, throw Error(kInvalidArgument).
class Handle {
 public:
  explicit Handle(std::unique_ptr<HandleState> state);
  Handle(Handle&&) noexcept;
  Handle& operator=(Handle&&) noexcept;
  ~Handle();

  /// @returns the number of this rank's tokens
  std::int64_t num_tokens() const;
  /// @returns [slots_per_rank + 1]: the rows of local slot s for tokens of other ranks are
  ///          [offsets[s], offsets[s + 1]), ordered by the rank that they come from, then by token
  std::span<const std::int64_t> offsets() const;
  /// @returns the same for tokens of this rank, whose rows follow: own_offsets[0] is
  ///          offsets().back(). There are no such rows if DispatchOptions::separates_own is false,
  ///          or in per-node mode on several nodes, where some of them come through a relay.
  std::span<const std::int64_t> own_offsets() const;
  /// @returns the number of (token, expert) choices that this rank computes
  std::int64_t num_rows() const { return own_offsets().back(); }

  /// Starts to send the tokens' rows.
  /// @param x [num_tokens, hidden], may be reused at once
  /// Cost: one message for each rank that gets a row; writes each row once for each copy.
  void start_dispatch(MatrixView<const float> x);
  /// Moves bytes of this dispatcher's exchanges without waiting.
  /// @returns whether the exchange that this handle has started is done, so that the call that
  ///          finishes it does not wait
  bool poll();
  /// Waits until the exchange that this handle has started is done.
  void wait();
  /// Copies the rows of this rank's tokens. To be called between start_dispatch() and
  /// finish_dispatch().
  /// @param rows [num_rows, hidden], of which those of own_offsets() are written
  void dispatch_own(MatrixView<float> rows);
  /// Waits, and copies the rows of other ranks' tokens.
  /// @param rows [num_rows, hidden], of which those of offsets() are written
  void finish_dispatch(MatrixView<float> rows);

  /// As the two calls above without copies: they return the rows where they were received, those of
  /// other ranks' tokens in the row type, and those of this rank's tokens in f32.
  /// @returns [num_rows, hidden], of which the rows of own_offsets() may be read after
  ///          dispatch_own(), and all after finish_dispatch(); valid until finish_combine(), the
  ///          next start_dispatch(), or the end of this handle
  GatheredRows dispatch_own();
  GatheredRows finish_dispatch();

  /// Multiplies results by the routing's weights, adds them up where the mode says so, and starts
  /// to send them back.
  /// @param rows [num_rows, hidden], of which those of offsets() are read; may be reused at once
  void start_combine(MatrixView<const float> rows);
  /// The same, but each row is multiplied by its own scale instead of the routing's weight. With
  /// scales of 1, combine is the adjoint of dispatch up to rounding: <dispatch(x), g> = <x,
  /// combine(g)>.
  /// @param row_scale [num_rows], in the memory of the mover; borrowed until combine_own()
  void start_combine(MatrixView<const float> rows, std::span<const float> row_scale);
  /// The same for results of this rank's tokens, which are not sent. To be called between
  /// start_combine() and finish_combine().
  /// @param rows [num_rows, hidden], of which those of own_offsets() are read; may be reused at
  ///        once
  void combine_own(MatrixView<const float> rows);
  /// Waits, and adds each token's result to its row of `sum`.
  /// @param sum [num_tokens, hidden]
  void finish_combine(MatrixView<float> sum);

  /// Returns the weight of each row, as its token's home rank gave it to make_handle(). In mode
  /// per-expert weights stay at home, so there the call is collective and waits. In the other modes
  /// the weights came with the lists. For rows in host memory; on a device, a dispatch of choices()
  /// gives rows their weights in every mode.
  /// @returns [num_rows]
  /// Cost: in mode per-expert one exchange of 4 bytes for each choice; else a copy.
  std::vector<float> row_weights() const;
  /// Makes a handle of the same batch with one value for each choice instead of one row for each
  /// token. Its "tokens" are the choices of this handle's tokens, t * top_k + k; its rows are this
  /// handle's rows, and travel in f32. So a dispatch of [num_tokens * top_k, 1] gives each row the
  /// value of its choice, and a combine of [num_rows, 1] brings one value of each row home, such as
  /// the gradient of the choice's weight; a masked choice gets nothing.
  /// @returns a handle whose label is that of this one and "choices"; the dispatcher must outlive
  ///          it, this handle need not
  /// Cost: no message.
  Handle choices() const;
  /// Goes back through the multiplication by weights that start_combine() does, for some rows: the
  /// gradients of weighted rows become those of rows, and give the gradients of the weights.
  /// RowMover::weigh_gradients() has the formulas. A Pipeline calls it.
  /// @param rows views of num_rows() rows, in the memory of the mover
  /// Cost: reads two rows and writes one for each choice; no message.
  void weigh_gradients(const RowGradients& rows) const;

 private:
  std::unique_ptr<HandleState> state_;
};

/// A dispatcher is the exchange of one layer: it knows the placement, and the loads of earlier
/// tokens, by which replicas are chosen. It keeps send and receive buffers between calls. One
/// thread uses it.
class Dispatcher {
 public:
  /// Makes a dispatcher for rows in host memory; loops over them run on `pool`.
  /// @param transport,pool must outlive the dispatcher; the transport has as many ranks as the
  ///        placement and the cluster
  /// @throws Error(kInvalidArgument) if the numbers of ranks differ, the placement is not valid,
  ///         the mode is kAllGather, or sums_before_return is false in per-node mode
  Dispatcher(Transport& transport, ThreadPool& pool, const Placement& placement,
             const DispatchOptions& options);
  /// Makes a dispatcher for rows in the memory of `mover`, which the views x, rows and sum of its
  /// handles show. The transport carries the lists.
  /// @param transport,mover must outlive the dispatcher
  /// @throws as the constructor above
  Dispatcher(Transport& transport, RowMover& mover, const Placement& placement,
             const DispatchOptions& options);
  /// Makes a dispatcher for another layer between the same ranks, with the same options. The two
  /// share buffers, so a model needs them once. One thread uses both, and exchanges of both may be
  /// under way at once.
  /// @throws as the constructors above
  Dispatcher(const Dispatcher& other_layer, const Placement& placement);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;
  ~Dispatcher();

  /// Tells each rank which rows it will get. Collective.
  /// @param topk_idx [num_tokens, top_k], of this rank's own tokens; distinct within a token,
  ///        kNoExpert = none. top_k <= kMaxTopK
  /// @param topk_weights [num_tokens, top_k]
  /// @param first_token the trace row of the first token, for ReplicaRule::kRandom
  /// @param label begins the labels of all exchanges and errors: "layer 3"
  /// @returns a handle, which the dispatcher must outlive
  /// @throws Error(kInvalidArgument) if a choice is not valid,
  ///         Error(kTransport) if a peer disagrees on the options or sends what is no valid list,
  ///         and as Exchange::wait()
  Handle make_handle(MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights,
                     std::int64_t first_token, std::string label);

  /// The same for a batch in `num_chunks` runs of tokens of equal length, up to one token. There is
  /// one exchange for all chunks. Each token's result is that of a single handle. Collective: every
  /// rank has the same number of chunks; some may be empty.
  /// @param label the label of handle n is this one and "chunk n"
  /// @returns one handle for each chunk
  /// @throws as make_handle(), and Error(kInvalidArgument) if `num_chunks` is not positive
  std::vector<Handle> make_handles(MatrixView<const ExpertId> topk_idx,
                                   MatrixView<const float> topk_weights, std::int64_t first_token,
                                   std::int32_t num_chunks, const std::string& label);

  /// @returns the bytes of rows that this rank has sent to each rank so far, dispatch and combine
  ///          together, of this layer and the layers that share its buffers. What a mover sends
  ///          over a network of its own, past the transport, is not counted. [ep_size]
  std::span<const std::int64_t> sent_row_bytes() const;

 private:
  std::unique_ptr<DispatcherState> state_;
};

}  // namespace c2r
