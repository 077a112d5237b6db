// Moves rows by a RowPlan, in the memory where the experts compute.
//
// The dispatcher decides what is moved when; a mover does it. HostRowMover is the mover of host
// memory. A mover of a device keeps rows in device memory and runs each call as a kernel, or as a
// transfer between devices, on a stream; docs/architecture.md says what it has to implement.
//
// Calls of a mover take effect in the order in which they are made, and may return before they have
// (a stream). So what is read or written by a call, rows of the caller among it, may be touched
// by other work of the same stream only; HostRowMover has finished when a call returns. The caller
// waits where bytes come from another rank: between exchange() and what reads the rows that it
// brings there is always a done() or wait() of what exchange() has returned.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "c2r/core/element.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/rows/row_plan.h"
#include "c2r/transport/transport.h"

namespace c2r {

enum class RowWay { kDispatch, kCombine };

/// Rows for tokens of this rank, if the plan separates them, or all others.
enum class RowPart { kOwn, kOthers };

/// What a caller multiplies each row by, instead of the routing's weights. [num_rows], in the
/// mover's memory. Nothing: the routing's weights.
using RowScale = std::optional<std::span<const float>>;

/// The rows of one plan on their way. Used by one thread, for one way at a time; views of `x`,
/// `rows` and `sum` show memory of the mover, which nobody else dereferences.
class MovingRows {
 public:
  MovingRows() = default;
  MovingRows(const MovingRows&) = delete;
  MovingRows& operator=(const MovingRows&) = delete;
  virtual ~MovingRows() = default;

  /// Takes memory for the sent and received rows of one way.
  virtual void begin(RowWay way, std::int64_t hidden) = 0;
  /// Gives it back.
  virtual void end() = 0;

  /// Dispatch: writes the sent rows of this rank's tokens, rounded to the row type; rows that stay
  /// on their rank are not rounded. @param x [num_tokens, hidden]
  virtual void gather(MatrixView<const float> x) = 0;
  /// Dispatch through relays: writes the sent rows of relayed items, from received rows.
  virtual void forward_relayed() = 0;
  /// Dispatch: copies each received row of the part to its rows. @param rows [num_rows, hidden]
  virtual void spread(RowPart part, MatrixView<float> rows) = 0;

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

  /// Starts to exchange rows with `peers`: there in a dispatch, back in a combine. This rank may
  /// be among them, and is left out.
  [[nodiscard]] virtual std::unique_ptr<Exchange> exchange(std::span<const RankId> peers,
                                                           std::string label) = 0;
};

/// One for each rank and device. Keeps buffers between batches.
class RowMover {
 public:
  RowMover() = default;
  RowMover(const RowMover&) = delete;
  RowMover& operator=(const RowMover&) = delete;
  virtual ~RowMover() = default;

  /// @param plan must outlive what is returned; a device uploads it here
  /// @param type of rows that cross the wire
  virtual std::unique_ptr<MovingRows> prepare(const RowPlan& plan, ElementType type) = 0;
};

}  // namespace c2r
