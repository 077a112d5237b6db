// Moves rows by a RowPlan, in the memory where the experts compute.
//
// The dispatcher decides what is moved when; a mover does it. HostRowMover is the mover of host
// memory. A mover of a device keeps rows in device memory and runs each call as a kernel, or as a
// transfer between devices, on a stream; docs/architecture.md says what it has to implement.
//
// Calls of a mover take effect in the order in which they are made. A call may return before it has
// taken effect, as tasks of a stream do, so the memory that a call reads or writes, which includes
// rows of the caller, may be touched by later work of the same stream only. HostRowMover has
// finished when a call returns. The caller waits for bytes from other ranks: after an exchange(),
// it calls done() or wait() of the Exchange before any call that reads the rows that have come.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "c2r/core/element.h"
#include "c2r/core/gathered_rows.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/rows/row_plan.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// The direction in which rows travel.
enum class RowWay { kDispatch, kCombine };

/// kOwn: the rows for tokens of this rank, if RowPlan::separates_own. kOthers: all other rows.
enum class RowPart { kOwn, kOthers };

/// The factors that a caller multiplies rows by instead of the routing's weights. [num_rows], in
/// the mover's memory. None: the routing's weights are used.
using RowScale = std::optional<std::span<const float>>;

/// What the backward pass of weights needs for rows [first, end), and what it writes: all in the
/// mover's memory.
struct RowGradients {
  std::int64_t first = 0, end = 0;
  MatrixView<const float> outputs;  // [num_rows, hidden], what the weights multiplied
  std::span<const float> weights;   // [num_rows]
  MatrixView<float> gradients;      // [num_rows, hidden], of the weighted rows
  std::span<float> products;        // [num_rows], the gradients of the weights
};

/// Moves the rows of one plan. One thread uses it, for one way at a time; only the rows that a
/// dispatch has received may be kept while a combine is under way. Views of `x`, `rows` and `sum`
/// show memory of the mover, which nobody else dereferences.
class MovingRows {
 public:
  MovingRows() = default;
  MovingRows(const MovingRows&) = delete;
  MovingRows& operator=(const MovingRows&) = delete;
  virtual ~MovingRows() = default;

  /// Takes memory for the sent and received rows of one way.
  virtual void begin(RowWay way, std::int64_t hidden) = 0;
  /// Gives the memory of a way back, if it has any.
  virtual void end(RowWay way) = 0;

  /// Dispatch: writes the sent rows of this rank's tokens, rounded to the row type; rows that stay
  /// on their rank are not rounded.
  /// @param x [num_tokens, hidden]
  virtual void gather(MatrixView<const float> x) = 0;
  /// Dispatch through relays: writes the sent rows of relayed items, from received rows.
  virtual void forward_relayed() = 0;
  /// Dispatch: copies each received row of the part to its rows.
  /// @param rows [num_rows, hidden]
  virtual void spread(RowPart part, MatrixView<float> rows) = 0;

  /// Dispatch, for experts that need no spread(): returns the rows where they were received, in the
  /// types in which they travelled. Rows of a part may be read when spread() of the part may be
  /// called.
  /// @returns [num_rows, hidden], valid until end(RowWay::kDispatch)
  virtual GatheredRows received() = 0;

  /// Combine: writes what goes back for each received row of the part: the sum of scale x row over
  /// its choices, in their order, or each choice's scale x row if the plan returns choices.
  /// Without `scale`, weights that stay at home are not applied here.
  virtual void reduce(RowPart part, MatrixView<const float> rows, const RowScale& scale) = 0;
  /// Combine through relays: writes the sums of what has returned for relayed items.
  virtual void sum_relayed() = 0;
  /// Combine: adds what has returned to the tokens, in the order of the plan.
  /// @param applies_weights whether return_weight is applied: not if the rows were scaled
  /// @param sum [num_tokens, hidden]
  virtual void add_returns(bool applies_weights, MatrixView<float> sum) = 0;

  /// Starts to exchange rows with `peers`: a dispatch sends sent rows and receives received rows, a
  /// combine does the reverse. This rank may be among the peers, and is skipped.
  /// @param way the one that was begun last
  /// @returns the exchange, after whose end the rows may be read
  [[nodiscard]] virtual std::unique_ptr<Exchange> exchange(RowWay way,
                                                           std::span<const RankId> peers,
                                                           std::string label) = 0;
};

/// Makes MovingRows, and keeps buffers between batches. There is one mover for each rank and
/// device.
class RowMover {
 public:
  RowMover() = default;
  RowMover(const RowMover&) = delete;
  RowMover& operator=(const RowMover&) = delete;
  virtual ~RowMover() = default;

  /// @param plan must outlive the object that is returned; a device uploads it here
  /// @param type the element type of rows that cross the wire
  /// @returns an object that moves the rows of `plan`
  virtual std::unique_ptr<MovingRows> prepare(const RowPlan& plan, ElementType type) = 0;

  /// Goes back through the multiplication of rows by weights: products[r] = <outputs[r],
  /// gradients[r]>, and then gradients[r] = weights[r] x gradients[r]. The product is a sum in f32:
  /// column c is added to partial sum (c / 8) % 32, in the order of columns, and then neighbours
  /// are added, 32 -> 16 -> ... -> 1.
  virtual void weigh_gradients(const RowGradients& rows) = 0;
};

}  // namespace c2r
