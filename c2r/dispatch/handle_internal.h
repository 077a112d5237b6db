// The order in which a handle's rows are written, exchanged and read.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "c2r/dispatch/rows/host_row_mover.h"
#include "c2r/dispatch/rows/make_row_plans_internal.h"
#include "c2r/dispatch/rows/row_mover.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// Starts exchanges in the order in which the program asked for them, though the second leg through
/// relays has to wait for the first. Two ranks match their exchanges by order, so the order must
/// not depend on which messages have arrived; all later exchanges wait, too.
class StartQueue {
 public:
  void push(HandleState* handle) { waiting_.push_back(handle); }
  void remove(const HandleState* handle) { std::erase(waiting_, handle); }
  bool empty() const { return waiting_.empty(); }
  /// Starts all exchanges that can be started without waiting.
  void advance();
  /// Starts the first exchange, after waiting for the one that it depends on.
  void start_first();

 private:
  std::deque<HandleState*> waiting_;  // once for each leg to start
};

/// The mover and the queue that the dispatchers of a model's layers share.
struct SharedByLayers {
  explicit SharedByLayers(RowMover& used_mover) : mover(used_mover) {}
  explicit SharedByLayers(std::unique_ptr<RowMover> made_mover)
      : own_mover(std::move(made_mover)), mover(*own_mover) {}

  std::unique_ptr<RowMover> own_mover;  // null if the caller has one
  RowMover& mover;
  StartQueue queue;  // one, since handles of several layers may be under way at once
  std::vector<std::int64_t> sent_row_bytes;  // [ep_size], of what the transport has carried
};

class DispatcherState {
 public:
  DispatcherState(Transport& used_transport, const Placement& placement,
                  const DispatchOptions& used_options, std::shared_ptr<SharedByLayers> shared_state)
      : transport(used_transport),
        options(used_options),
        table(used_transport, placement, used_options),
        shared(std::move(shared_state)) {
    shared->sent_row_bytes.resize(static_cast<std::size_t>(transport.ep_size()));
  }

  std::vector<RowPlan> make_plans(MatrixView<const ExpertId> topk_idx,
                                  MatrixView<const float> topk_weights, std::int64_t first_token,
                                  std::int32_t num_chunks, const std::string& label);
  /// Counts as rows what the transport has sent since `before` was its count. [ep_size]
  void add_sent_rows(std::span<const std::int64_t> before);

  Transport& transport;
  const DispatchOptions options;
  RoutingTable table;
  std::shared_ptr<SharedByLayers> shared;
};

class HandleState {
 public:
  HandleState(DispatcherState& dispatcher, RowPlan plan, ElementType type, std::string label);
  HandleState(const HandleState&) = delete;
  HandleState& operator=(const HandleState&) = delete;
  ~HandleState();

  const RowPlan& plan() const { return plan_; }

  void start_dispatch(MatrixView<const float> x);
  void dispatch_own(MatrixView<float> rows);
  GatheredRows dispatch_own();
  void finish_dispatch(MatrixView<float> rows);
  GatheredRows finish_dispatch();
  void start_combine(MatrixView<const float> rows, const RowScale& scale);
  void combine_own(MatrixView<const float> rows);
  void finish_combine(MatrixView<float> sum);
  bool poll();
  void wait();

  std::unique_ptr<HandleState> of_choices() const;
  std::vector<float> row_weights() const;
  void weigh_gradients(const RowGradients& rows) const;

  /// Starts the next leg of the dispatch or combine that is under way. If the leg before it is not
  /// done, waits for it if `may_wait`.
  /// @returns whether the leg was started
  bool start_next_leg(bool may_wait);

 private:
  enum class Phase { kIdle, kDispatch, kCombine };

  bool has_relays() const { return !dispatcher_.table.relays.empty(); }
  std::size_t num_legs() const { return has_relays() ? 2 : 1; }
  RowWay way() const { return phase_ == Phase::kDispatch ? RowWay::kDispatch : RowWay::kCombine; }
  void begin(Phase phase, std::int64_t hidden);
  void check_started(Phase phase, std::int64_t hidden) const;
  void take_own(Phase phase, std::int64_t num_rows, std::int64_t hidden);
  void wait_for(Phase phase, std::int64_t hidden);
  void start_legs();
  void end();
  void end_received();
  void start_exchange(bool is_between_nodes);
  void check_rows(std::int64_t has, std::int64_t needs, const char* what) const;
  Matrix<float> home_weights() const;

  DispatcherState& dispatcher_;
  const RowPlan plan_;
  const std::string label_;
  const std::unique_ptr<MovingRows> moving_;

  Phase phase_ = Phase::kIdle;
  std::int64_t hidden_ = 0;      // of what is under way
  bool has_own_ = false;         // whether what stays was taken from, or given to, it
  bool keeps_received_ = false;  // rows of the last dispatch, which the caller may read
  RowScale scale_;               // of the combine that is under way
  std::size_t num_started_ = 0;  // legs
  std::array<std::unique_ptr<Exchange>, 2> legs_;  // last: they borrow the buffers of moving_
};

}  // namespace c2r
