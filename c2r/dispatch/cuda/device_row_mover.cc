// Moves rows in the memory of a device: each call is a kernel on the compute stream, whose
// arguments are the uploaded arrays of the plan.
#include "c2r/dispatch/cuda/device_row_mover.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/dispatch/cuda/row_kernels-inl.h"
#include "c2r/dispatch/rows/way_rows_internal.h"

namespace c2r {
namespace {

constexpr std::int64_t kMaxGridBlocks = std::numeric_limits<std::int32_t>::max();  // of a grid

// The arrays of a plan in device memory, one after the other.
class UploadedPlan {
 public:
  UploadedPlan(const RowPlan& plan, DeviceStream& stream) {
    std::vector<std::byte> bytes;
    std::vector<std::function<void(const std::byte*)>> setters;
    const auto add = [&]<class T>(const std::vector<T>& array, const T*& address) {
      if (array.empty()) return;
      const std::size_t begin = (bytes.size() + 15) / 16 * 16;
      bytes.resize(begin + array.size() * sizeof(T));
      std::memcpy(&bytes[begin], array.data(), array.size() * sizeof(T));
      setters.push_back([begin, &address](const std::byte* memory) {
        address = reinterpret_cast<const T*>(memory + begin);
      });
    };
    add(plan.send_item, send_item), add(plan.choice_offsets, choice_offsets);
    add(plan.choice_row, choice_row), add(plan.row_weight, row_weight);
    add(plan.relay_row, relay_row), add(plan.return_offsets, return_offsets);
    add(plan.return_row, return_row), add(plan.return_weight, return_weight);
    memory_ = DeviceBuffer(stream, std::ssize(bytes));
    if (!bytes.empty()) stream.upload(bytes, memory_.data());
    for (const auto& set_address : setters) set_address(memory_.data());
  }
  UploadedPlan(const UploadedPlan&) = delete;
  UploadedPlan& operator=(const UploadedPlan&) = delete;

  // As in RowPlan; null where the plan has no such array.
  const std::int32_t *send_item = nullptr, *choice_row = nullptr, *relay_row = nullptr,
                     *return_row = nullptr;
  const std::int64_t *choice_offsets = nullptr, *return_offsets = nullptr;
  const float *row_weight = nullptr, *return_weight = nullptr;

 private:
  DeviceBuffer memory_;
};

// The rows of one way: offsets of the plan, and memory for what crosses the wire and what stays.
struct DeviceWay {
  WayOffsets offsets;
  DeviceBuffer send_buffer, recv_buffer, own_buffer;
  DeviceRowStore sent, received;
};

std::byte* bytes_of(MatrixView<float> rows) {
  return reinterpret_cast<std::byte*>(rows.data());
}
const std::byte* bytes_of(MatrixView<const float> rows) {
  return reinterpret_cast<const std::byte*>(rows.data());
}

// @param rows the caller's memory that the kernel uses; buffers of the mover are aligned
template <class Kernel>
void launch_on(DeviceStream& stream, RowLauncher& launcher, const Kernel& kernel,
               std::initializer_list<const void*> rows) {
  const std::int64_t num_blocks = kernel.num_blocks();
  if (num_blocks == 0 || kernel.hidden() == 0) return;
  C2R_REQUIRE(num_blocks <= kMaxGridBlocks, kUnsupported,
              "a kernel moves at most {} rows, not {}; use more chunks", kMaxGridBlocks,
              num_blocks);
  launcher.launch({kernel, kernel.hidden() % kRowVector == 0 &&
                               std::ranges::all_of(rows, is_aligned_for_vectors)},
                  stream);
}

class DeviceMovingRows final : public MovingRows {
 public:
  DeviceMovingRows(DeviceStream& compute, DeviceNetwork& network, RowLauncher& launcher,
                   const RowPlan& plan, ElementType type)
      : compute_(compute),
        network_(network),
        launcher_(launcher),
        plan_(plan),
        uploaded_(plan, compute),
        type_(type) {}

  void begin(RowWay way, std::int64_t hidden) override;
  void end(RowWay way) override { rows_of_way(way) = {}; }
  void gather(MatrixView<const float> x) override;
  void forward_relayed() override;
  void spread(RowPart part, MatrixView<float> rows) override;
  GatheredRows received() override;
  void reduce(RowPart part, MatrixView<const float> rows, const RowScale& scale) override;
  void sum_relayed() override;
  void add_returns(bool applies_weights, MatrixView<float> sum) override;
  std::unique_ptr<Exchange> exchange(RowWay way, std::span<const RankId> peers,
                                     std::string label) override;

 private:
  DeviceWay& rows_of_way(RowWay way) { return way == RowWay::kDispatch ? dispatch_ : combine_; }
  // @param rows as of launch_on()
  template <class Kernel>
  void launch(const Kernel& kernel, const void* rows = nullptr) {
    launch_on(compute_, launcher_, kernel, {rows});
  }
  PartCopies copies_of(RowPart part) const;
  std::pair<std::int64_t, std::int64_t> own_range(std::span<const std::int64_t> offsets) const {
    return {offsets[index(plan_.rank)], offsets[index(plan_.rank) + 1]};
  }
  DeviceRowStore lay_out(std::span<const std::int64_t> offsets, DeviceBuffer& buffer,
                         const DeviceBuffer& own);
  std::span<std::byte> part_of(const DeviceRowStore& store, std::span<const std::int64_t> offsets,
                               RankId peer) const;
  ReturnedRows returned(bool applies_weights) const {
    return {.rows = combine_.sent,
            .offsets = uploaded_.return_offsets,
            .row = uploaded_.return_row,
            .weights = applies_weights ? uploaded_.return_weight : nullptr};
  }

  DeviceStream& compute_;
  DeviceNetwork& network_;
  RowLauncher& launcher_;
  const RowPlan& plan_;
  const UploadedPlan uploaded_;
  const ElementType type_;
  std::int64_t hidden_ = 0;  // of the way that was begun last
  DeviceWay dispatch_, combine_;
  DeviceBuffer row_index_;  // i32, [num_rows], of received(); made when it is needed
};

DeviceRowStore DeviceMovingRows::lay_out(std::span<const std::int64_t> offsets,
                                         DeviceBuffer& buffer, const DeviceBuffer& own) {
  const auto [begin, end] = own_range(offsets);
  const std::int64_t num_on_the_wire = offsets.back() - (end - begin);
  buffer = DeviceBuffer(compute_, num_on_the_wire * hidden_ * element_bytes(type_));
  return {.wire = buffer.data(),
          .own = own.data(),
          .own_begin = begin,
          .own_end = end,
          .hidden = hidden_,
          .type = type_};
}

void DeviceMovingRows::begin(RowWay way, std::int64_t hidden) {
  hidden_ = hidden;
  DeviceWay& rows = rows_of_way(way);
  rows.offsets = offsets_of_way(plan_, way);
  // Of a dispatch that is kept, only what it has received is.
  if (way == RowWay::kCombine) dispatch_.send_buffer = {};
  const auto [begin, end] = own_range(rows.offsets.send);
  rows.own_buffer =
      DeviceBuffer(compute_, (end - begin) * hidden * element_bytes(ElementType::kF32));
  rows.sent = lay_out(rows.offsets.send, rows.send_buffer, rows.own_buffer);
  rows.received = lay_out(rows.offsets.recv, rows.recv_buffer, rows.own_buffer);
}

PartCopies DeviceMovingRows::copies_of(RowPart part) const {
  auto [begin, end] = own_range(plan_.recv_offsets);
  if (!plan_.separates_own) end = begin;  // then all copies are among the others
  if (part == RowPart::kOwn) return {.num_copies = end - begin, .skip_from = 0, .skip = begin};
  return {
      .num_copies = plan_.num_received() - (end - begin), .skip_from = begin, .skip = end - begin};
}

void DeviceMovingRows::gather(MatrixView<const float> x) {
  launch(GatherRows{.x = bytes_of(x),
                    .send_item = uploaded_.send_item,
                    .num_sent = plan_.num_sent(),
                    .num_tokens = plan_.num_tokens,
                    .sent = dispatch_.sent},
         x.data());
}

void DeviceMovingRows::forward_relayed() {
  launch(ForwardRows{.send_item = uploaded_.send_item,
                     .relay_row = uploaded_.relay_row,
                     .num_sent = plan_.num_relayed() == 0 ? 0 : plan_.num_sent(),
                     .num_tokens = plan_.num_tokens,
                     .received = dispatch_.received,
                     .sent = dispatch_.sent});
}

void DeviceMovingRows::spread(RowPart part, MatrixView<float> rows) {
  launch(SpreadRows{.part = copies_of(part),
                    .choice_offsets = uploaded_.choice_offsets,
                    .choice_row = uploaded_.choice_row,
                    .received = dispatch_.received,
                    .rows = bytes_of(rows)},
         rows.data());
}

// What was received on the wire comes first, then what stayed on this rank.
GatheredRows DeviceMovingRows::received() {
  const DeviceRowStore& store = dispatch_.received;
  if (row_index_.bytes().empty()) {
    row_index_ = DeviceBuffer(compute_, plan_.num_rows() * std::int64_t{sizeof(std::int32_t)});
    launch(IndexReceived{.num_received = plan_.num_received(),
                         .own_begin = store.own_begin,
                         .own_end = store.own_end,
                         .choice_offsets = uploaded_.choice_offsets,
                         .choice_row = uploaded_.choice_row,
                         .index = reinterpret_cast<std::int32_t*>(row_index_.data())});
  }
  const std::int64_t num_own = store.own_end - store.own_begin;
  const std::span<const std::int32_t> index(
      reinterpret_cast<const std::int32_t*>(row_index_.data()), std::size_t(plan_.num_rows()));
  return {RowsView(store.wire, type_, plan_.num_received() - num_own, hidden_, hidden_), index,
          RowsView(store.own, ElementType::kF32, num_own, hidden_, hidden_)};
}

void DeviceMovingRows::reduce(RowPart part, MatrixView<const float> rows, const RowScale& scale) {
  const float* const routing_weights = plan_.returns_choices ? nullptr : uploaded_.row_weight;
  launch(ReduceRows{.part = copies_of(part),
                    .choice_offsets = uploaded_.choice_offsets,
                    .choice_row = uploaded_.choice_row,
                    .weights = scale ? scale->data() : routing_weights,
                    .rows = bytes_of(rows),
                    .returns_choices = plan_.returns_choices,
                    .back = combine_.received},
         rows.data());
}

void DeviceMovingRows::sum_relayed() {
  launch(SumRelayed{.returned = returned(false),
                    .relay_row = uploaded_.relay_row,
                    .num_relayed = plan_.num_relayed(),
                    .num_tokens = plan_.num_tokens,
                    .back = combine_.received});
}

void DeviceMovingRows::add_returns(bool applies_weights, MatrixView<float> sum) {
  launch(AddReturns{.returned = returned(applies_weights),
                    .num_tokens = plan_.num_tokens,
                    .sum = bytes_of(sum)},
         sum.data());
}

// The rows that are exchanged with a peer lie one after the other.
std::span<std::byte> DeviceMovingRows::part_of(const DeviceRowStore& store,
                                               std::span<const std::int64_t> offsets,
                                               RankId peer) const {
  const auto begin = offsets[index(peer)], end = offsets[index(peer) + 1];
  if (begin == end || hidden_ == 0) return {};
  const std::int64_t row_bytes = hidden_ * element_bytes(type_);
  return {store.row(begin).elements, static_cast<std::size_t>((end - begin) * row_bytes)};
}

std::unique_ptr<Exchange> DeviceMovingRows::exchange(RowWay way, std::span<const RankId> peers,
                                                     std::string label) {
  const DeviceWay& rows = rows_of_way(way);
  const ExchangeParts parts = parts_of_exchange(
      way, peers, plan_.rank,
      [&](RankId peer) { return part_of(rows.sent, rows.offsets.send, peer); },
      [&](RankId peer) { return part_of(rows.received, rows.offsets.recv, peer); });
  return network_.start(parts.send, parts.recv, std::move(label));
}

}  // namespace

std::unique_ptr<MovingRows> DeviceRowMover::prepare(const RowPlan& plan, ElementType type) {
  return std::make_unique<DeviceMovingRows>(compute_, network_, launcher_, plan, type);
}

void DeviceRowMover::weigh_gradients(const RowGradients& rows) {
  launch_on(compute_, launcher_,
            WeighRows{.first = rows.first,
                      .num_rows = rows.end - rows.first,
                      .row_hidden = rows.outputs.cols(),
                      .outputs = bytes_of(rows.outputs),
                      .weights = rows.weights.data(),
                      .gradients = bytes_of(rows.gradients),
                      .products = rows.products.data()},
            {rows.outputs.data(), rows.gradients.data()});
}

}  // namespace c2r
