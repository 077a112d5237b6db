// A device for tests, and its row mover: it has memory of its own and a queue that runs as late as
// it can, so that a missing wait shows.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "c2r/dispatch/rows/row_mover.h"

namespace c2r::testing {

inline constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

// Tasks run in order, and only when somebody waits for them. A matrix of the device is seen by the
// host as poison: only tasks reach its values. So whoever reads too early, or on the host, gets
// NaN.
class FakeDevice {
 public:
  void enqueue(std::function<void()> task) { queue_.push_back(std::move(task)); }
  void synchronize() {
    while (!queue_.empty()) {
      const auto task = std::move(queue_.front());
      queue_.pop_front();
      task();
    }
  }

  // @returns what the host sees
  MatrixView<float> allocate(std::int64_t rows, std::int64_t cols) {
    auto& memory = memory_.emplace_back(
        std::make_unique<Memory>(Memory{{rows, cols, kPoison}, {rows, cols, kPoison}}));
    if (rows * cols > 0) by_address_[memory->host.all().data()] = memory.get();
    return memory->host;
  }
  // The values of a view, or of a view of some of its rows; for tasks.
  template <class T>
  MatrixView<float> values(MatrixView<T> view) const {
    if (view.rows() * view.cols() == 0) return {nullptr, view.rows(), view.cols()};
    Memory& memory = *std::prev(by_address_.upper_bound(view.data()))->second;
    const auto offset = view.data() - memory.host.all().data();
    return {memory.device.all().data() + offset, view.rows(), view.cols()};
  }
  void upload(const Matrix<float>& from, MatrixView<float> to) {
    enqueue([this, from, to] { std::ranges::copy(from.all(), values(to).data()); });
  }
  Matrix<float> download(MatrixView<float> from) {
    synchronize();
    Matrix<float> to(from.rows(), from.cols());
    std::copy_n(values(from).data(), to.all().size(), to.all().begin());
    return to;
  }
  bool host_copies_are_poison() const {
    return std::ranges::all_of(memory_, [](const auto& memory) {
      return std::ranges::all_of(memory->host.all(), [](float v) { return std::isnan(v); });
    });
  }

 private:
  struct Memory {
    Matrix<float> host, device;
  };
  std::deque<std::function<void()>> queue_;
  std::vector<std::unique_ptr<Memory>> memory_;
  std::map<const float*, Memory*> by_address_;
};

// A faulty mover lets bytes leave before its queue has written them.
struct FakeMoverOptions {
  bool waits_before_sending = true;
};

// The rows of one way in the device's memory, as floats that the row type holds; tasks keep them
// alive.
struct DeviceRows {
  DeviceRows(std::shared_ptr<const RowPlan> of_plan, ElementType row_type, RowWay of_way,
             std::int64_t hidden)
      : plan(std::move(of_plan)), type(row_type), way(of_way) {
    const bool moves_choices = way == RowWay::kCombine && plan->returns_choices;
    send_offsets = moves_choices ? plan->send_choice_offsets : plan->send_offsets;
    recv_offsets = moves_choices ? plan->recv_choice_offsets : plan->recv_offsets;
    sent = Matrix<float>(send_offsets.back(), hidden, kPoison);
    received = Matrix<float>(recv_offsets.back(), hidden, kPoison);
  }

  // Writes a row that leaves: what stays on the rank arrives at once, and is not rounded.
  void put(std::span<const float> from, std::int64_t row) {
    const bool there = way == RowWay::kDispatch;
    const std::size_t me = index(plan->rank);
    const auto& offsets = there ? send_offsets : recv_offsets;
    const std::int64_t own = row - offsets[me];
    const bool stays = own >= 0 && row < offsets[me + 1];
    const std::span<float> to = (there ? sent : received).row(row);
    std::vector<std::byte> stored(from.size() * sizeof(float));
    const ElementType to_type = stays ? ElementType::kF32 : type;
    from_f32(from, to_type, stored.data());
    to_f32(stored.data(), to_type, to);
    if (!stays) return;
    const std::int64_t arrives_at = (there ? recv_offsets : send_offsets)[me] + own;
    std::ranges::copy(from, (there ? received : sent).row(arrives_at).begin());
  }
  bool is_in_part(RowPart part, std::int64_t copy) const {
    const std::size_t me = index(plan->rank);
    const bool is_own =
        plan->separates_own && copy >= plan->recv_offsets[me] && copy < plan->recv_offsets[me + 1];
    return is_own == (part == RowPart::kOwn);
  }
  std::span<const std::int32_t> rows_of(std::int64_t copy) const {
    const auto begin = plan->choice_offsets[std::size_t(copy)],
               end = plan->choice_offsets[std::size_t(copy) + 1];
    return std::span(plan->choice_row).subspan(std::size_t(begin), std::size_t(end - begin));
  }
  void add_returns(std::int64_t item, bool applies_weights, std::span<float> sum) const {
    const auto begin = std::size_t(plan->return_offsets[std::size_t(item)]),
               end = std::size_t(plan->return_offsets[std::size_t(item) + 1]);
    for (std::size_t i = begin; i < end; ++i) {
      const bool has_weight = applies_weights && !plan->return_weight.empty();
      const float weight = has_weight ? plan->return_weight[i] : 1;
      const auto row = sent.row(plan->return_row[i]);
      for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * row[c];
    }
  }

  const std::shared_ptr<const RowPlan> plan;
  const ElementType type;
  const RowWay way;
  std::vector<std::int64_t> send_offsets, recv_offsets;
  Matrix<float> sent, received;
};

inline void reduce_rows(DeviceRows& moved, RowPart part, MatrixView<const float> rows,
                        std::span<const float> weights) {
  std::vector<float> sum(std::size_t(rows.cols()));
  std::int64_t choice = 0;
  for (std::int64_t copy = 0; copy < moved.plan->num_received(); ++copy) {
    const auto rows_of_copy = moved.rows_of(copy);
    const auto first_choice = std::exchange(choice, choice + std::ssize(rows_of_copy));
    if (!moved.is_in_part(part, copy) || rows_of_copy.empty()) continue;
    for (std::size_t n = 0; n < rows_of_copy.size(); ++n) {
      const auto row = rows.row(rows_of_copy[n]);
      const float weight = weights.empty() ? 1 : weights[std::size_t(rows_of_copy[n])];
      const bool is_first = n == 0 || moved.plan->returns_choices;
      for (std::size_t c = 0; c < sum.size(); ++c) {
        sum[c] = is_first ? weight * row[c] : sum[c] + weight * row[c];
      }
      if (moved.plan->returns_choices) moved.put(sum, first_choice + std::int64_t(n));
    }
    if (!moved.plan->returns_choices) moved.put(sum, copy);
  }
}

// Rows between devices go through host memory here, since the test has no network but a Transport.
// A mover whose network takes part in its queue needs neither the copies nor the first wait.
class StagedExchange final : public Exchange {
 public:
  StagedExchange(FakeDevice& device, Transport& transport, std::shared_ptr<DeviceRows> rows,
                 std::span<const RankId> peers, const std::string& label)
      : device_(device), rows_(std::move(rows)) {
    const bool there = rows_->way == RowWay::kDispatch;
    std::vector<Outgoing> send;
    std::vector<Incoming> recv;
    staged_.reserve(2 * peers.size());
    for (const RankId peer : peers) {
      if (peer == rows_->plan->rank) continue;
      Part& out = add_part(peer, there);
      copy(*rows_, out, true);
      send.push_back({peer, out.bytes});
      Part& in = add_part(peer, !there);
      recv.push_back({peer, in.bytes});
    }
    inner_ = transport.start(send, recv, label);
  }

  bool done() override {
    if (!inner_->done()) return false;
    store();
    return true;
  }
  void wait() override {
    inner_->wait();
    store();
  }

 private:
  struct Part {
    bool is_sent_side = false;
    std::int64_t first_row = 0, num_rows = 0;
    std::vector<std::byte> bytes;
  };

  Part& add_part(RankId peer, bool is_sent_side) {
    const auto& offsets = is_sent_side ? rows_->send_offsets : rows_->recv_offsets;
    const auto begin = offsets[index(peer)], end = offsets[index(peer) + 1];
    const std::int64_t num_bytes = (end - begin) * rows_->sent.cols() * element_bytes(rows_->type);
    return staged_.emplace_back(
        Part{is_sent_side, begin, end - begin, std::vector<std::byte>(std::size_t(num_bytes))});
  }
  // Between the device's rows and the bytes of the wire.
  static void copy(DeviceRows& rows, Part& part, bool to_bytes) {
    Matrix<float>& side = part.is_sent_side ? rows.sent : rows.received;
    const MutableRowsView stored(part.bytes, rows.type, part.num_rows, side.cols());
    for (std::int64_t r = 0; r < part.num_rows; ++r) {
      const std::span<float> values = side.row(part.first_row + r);
      to_bytes ? stored.write_row(r, values) : stored.read_row(r, values);
    }
  }
  // Enqueues what brings the bytes into the device's memory, once.
  void store() {
    if (is_stored_) return;
    is_stored_ = true;
    const bool there = rows_->way == RowWay::kDispatch;
    for (Part& part : staged_) {
      if (part.is_sent_side == there) continue;
      device_.enqueue([rows = rows_, staged = std::make_shared<Part>(std::move(part))] {
        copy(*rows, *staged, false);
      });
    }
  }

  FakeDevice& device_;
  const std::shared_ptr<DeviceRows> rows_;
  std::vector<Part> staged_;
  std::unique_ptr<Exchange> inner_;
  bool is_stored_ = false;
};

class FakeMovingRows final : public MovingRows {
 public:
  FakeMovingRows(Transport& transport, FakeDevice& device, const FakeMoverOptions& options,
                 const RowPlan& plan, ElementType type)
      : transport_(transport),
        device_(device),
        options_(options),
        plan_(std::make_shared<const RowPlan>(plan)),
        type_(type) {}

  void begin(RowWay way, std::int64_t hidden) override {
    rows_ = std::make_shared<DeviceRows>(plan_, type_, way, hidden);
    if (way == RowWay::kDispatch) dispatched_ = rows_;
  }
  // Tasks that read the rows may still be in the queue.
  void end(RowWay way) override {
    auto& rows = way == RowWay::kDispatch ? dispatched_ : rows_;
    device_.enqueue([ended = std::exchange(rows, nullptr)] {});
  }

  void gather(MatrixView<const float> x) override {
    device_.enqueue([&device = device_, rows = rows_, x] {
      for (std::int64_t row = 0; row < rows->sent.rows(); ++row) {
        const std::int32_t item = rows->plan->send_item[std::size_t(row)];
        if (item < rows->plan->num_tokens) rows->put(device.values(x).row(item), row);
      }
    });
  }
  void forward_relayed() override {
    device_.enqueue([rows = rows_] {
      for (std::int64_t row = 0; row < rows->sent.rows(); ++row) {
        const auto i = rows->plan->send_item[std::size_t(row)] - rows->plan->num_tokens;
        if (i < 0) continue;
        const auto from = rows->received.row(rows->plan->relay_row[std::size_t(i)]);
        rows->put(std::vector<float>(from.begin(), from.end()), row);
      }
    });
  }
  void spread(RowPart part, MatrixView<float> to) override {
    device_.enqueue([&device = device_, rows = rows_, part, to] {
      for (std::int64_t copy = 0; copy < rows->plan->num_received(); ++copy) {
        if (!rows->is_in_part(part, copy)) continue;
        for (const std::int32_t row : rows->rows_of(copy)) {
          std::ranges::copy(rows->received.row(copy), device.values(to).row(row).begin());
        }
      }
    });
  }
  GatheredRows received() override {
    row_source_.resize(std::size_t(plan_->num_rows()));
    for (std::int64_t copy = 0; copy < plan_->num_received(); ++copy) {
      for (const std::int32_t row : dispatched_->rows_of(copy)) {
        row_source_[std::size_t(row)] = std::int32_t(copy);
      }
    }
    return {f32_rows(dispatched_->received), row_source_};
  }
  void reduce(RowPart part, MatrixView<const float> from, const RowScale& scale) override {
    device_.enqueue([&device = device_, rows = rows_, part, from, scale] {
      std::span<const float> weights;
      if (!scale && !rows->plan->returns_choices) weights = rows->plan->row_weight;
      const MatrixView<const float> scales(scale ? scale->data() : nullptr,
                                           scale ? std::ssize(*scale) : 0, 1);
      const auto values = device.values(scales);
      if (scale) weights = {values.data(), std::size_t(values.rows())};
      const auto outputs = device.values(from);
      reduce_rows(*rows, part, {outputs.data(), outputs.rows(), outputs.cols()}, weights);
    });
  }
  void sum_relayed() override {
    device_.enqueue([rows = rows_] {
      for (std::int64_t i = 0; i < rows->plan->num_relayed(); ++i) {
        std::vector<float> sum(std::size_t(rows->sent.cols()));
        rows->add_returns(rows->plan->num_tokens + i, false, sum);
        rows->put(sum, rows->plan->relay_row[std::size_t(i)]);
      }
    });
  }
  void add_returns(bool applies_weights, MatrixView<float> sum) override {
    device_.enqueue([&device = device_, rows = rows_, applies_weights, sum] {
      for (std::int64_t t = 0; t < rows->plan->num_tokens; ++t) {
        rows->add_returns(t, applies_weights, device.values(sum).row(t));
      }
    });
  }
  std::unique_ptr<Exchange> exchange(RowWay, std::span<const RankId> peers,
                                     std::string label) override {
    if (options_.waits_before_sending) device_.synchronize();
    return std::make_unique<StagedExchange>(device_, transport_, rows_, peers, label);
  }

 private:
  Transport& transport_;
  FakeDevice& device_;
  const FakeMoverOptions options_;
  const std::shared_ptr<const RowPlan> plan_;
  const ElementType type_;
  std::shared_ptr<DeviceRows> rows_;        // of the way that was begun last
  std::shared_ptr<DeviceRows> dispatched_;  // of the last dispatch, until it ends
  std::vector<std::int32_t> row_source_;    // [num_rows], of received()
};

class FakeMover final : public RowMover {
 public:
  FakeMover(Transport& transport, FakeDevice& device, const FakeMoverOptions& options)
      : transport_(transport), device_(device), options_(options) {}
  std::unique_ptr<MovingRows> prepare(const RowPlan& plan, ElementType type) override {
    return std::make_unique<FakeMovingRows>(transport_, device_, options_, plan, type);
  }

 private:
  Transport& transport_;
  FakeDevice& device_;
  const FakeMoverOptions options_;
};

}  // namespace c2r::testing
