// The mover of rows in host memory: loops on a thread pool, and a Transport between ranks.
#pragma once

#include <memory>

#include "c2r/core/parallel.h"
#include "c2r/dispatch/rows/row_mover.h"
#include "c2r/transport/transport.h"

namespace c2r {

class BufferPool;

/// Moves rows in host memory. Each loop over rows runs on all threads of the pool; the bits of
/// results do not depend on the number of threads. A call that is made by the action of
/// ThreadPool::set_after_task() works on the calling thread alone.
///
/// Cost: gather(), spread(), reduce() and add_returns() read and write each row once for each copy
/// or choice; received() copies no row.
/// Memory: a row for each sent and received row, in each direction, kept for the next batch.
class HostRowMover final : public RowMover {
 public:
  /// @param transport,pool must outlive this object
  HostRowMover(Transport& transport, ThreadPool& pool);
  ~HostRowMover() override;

  std::unique_ptr<MovingRows> prepare(const RowPlan& plan, ElementType type) override;
  void weigh_gradients(const RowGradients& rows) override;

 private:
  Transport& transport_;
  ThreadPool& pool_;
  std::unique_ptr<BufferPool> buffers_;
};

}  // namespace c2r
