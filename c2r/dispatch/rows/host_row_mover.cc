// Moves rows in host memory: each call is a loop over rows, whose results are independent, on the
// pool, and an exchange sends the rows of each peer as they lie in the buffers.
#include "c2r/dispatch/rows/host_row_mover.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "c2r/dispatch/rows/buffers_internal.h"
#include "c2r/dispatch/rows/way_rows_internal.h"

namespace c2r {
namespace {

// The rows of one side, sent or received. Those that stay on their rank are one buffer for both
// sides, in f32; all others lie one after the other, so that the rows of each peer do.
struct RowStore {
  MutableRowsView wire, own;
  std::int64_t own_begin = 0, own_end = 0;  // numbers of the rows that stay

  struct Place {
    const MutableRowsView* rows;
    std::int64_t r;
  };
  Place place(std::int64_t row) const {
    if (row < own_begin) return {&wire, row};
    if (row < own_end) return {&own, row - own_begin};
    return {&wire, row - (own_end - own_begin)};
  }
  void encode(std::span<const float> from, std::int64_t row) const {
    const auto [rows, r] = place(row);
    rows->write_row(r, from);
  }
  void decode(std::int64_t row, std::span<float> to) const {
    const auto [rows, r] = place(row);
    rows->read_row(r, to);
  }
  void add(std::int64_t row, float weight, std::span<float> sum) const {
    const auto [rows, r] = place(row);
    rows->add_row_to(r, weight, sum);
  }
};

// In the order of RowMover::weigh_gradients().
float product_of_rows(std::span<const float> a, std::span<const float> b) {
  std::array<float, 32> sums{};
  for (std::size_t c = 0; c < a.size(); ++c) sums[c / 8 % sums.size()] += a[c] * b[c];
  for (std::size_t half = 1; half < sums.size(); half *= 2) {
    for (std::size_t i = 0; i < sums.size(); i += 2 * half) sums[i] += sums[i + half];
  }
  return sums[0];
}

class HostMovingRows final : public MovingRows {
 public:
  HostMovingRows(Transport& transport, ThreadPool& pool, BufferPool& buffers, const RowPlan& plan,
                 ElementType type)
      : transport_(transport), pool_(pool), buffers_(buffers), plan_(plan), type_(type) {}

  ~HostMovingRows() override {
    for (const RowWay way : {RowWay::kDispatch, RowWay::kCombine}) end(way);
  }

  void begin(RowWay way, std::int64_t hidden) override;
  void end(RowWay way) override;
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
  // The rows of one way, and their offsets in the plan.
  struct WayRows {
    WayOffsets offsets;
    Buffer send_buffer, recv_buffer, own_buffer;
    RowStore sent, received;
  };

  WayRows& rows_of_way(RowWay way) { return way == RowWay::kDispatch ? dispatch_ : combine_; }
  template <class Body>
  void for_each_row(std::int64_t num_rows, const Body& body);
  template <class Body>
  void for_each_received(RowPart part, const Body& body);
  static void scale_row(std::span<const float> row, float weight, std::span<float> to) {
    for (std::size_t c = 0; c < to.size(); ++c) to[c] = weight * row[c];
  }
  std::span<float> scratch(int thread) {
    return std::span(scratch_).subspan(std::size_t(thread) * std::size_t(hidden_),
                                       std::size_t(hidden_));
  }
  std::span<std::byte> part_of(const RowStore& store, std::span<const std::int64_t> offsets,
                               RankId peer) const;
  RowStore lay_out(std::span<const std::int64_t> offsets, Buffer& buffer, const Buffer& own);

  Transport& transport_;
  ThreadPool& pool_;
  BufferPool& buffers_;
  const RowPlan& plan_;
  const ElementType type_;

  std::int64_t hidden_ = 0;  // of the way that was begun last
  WayRows dispatch_, combine_;
  std::vector<float> scratch_;            // [num_threads, hidden]
  std::vector<std::int32_t> row_source_;  // [num_rows], of received(); made when it is needed
};

// Calls body(row, thread) for each row, in tasks of some 64 KiB.
template <class Body>
void HostMovingRows::for_each_row(std::int64_t num_rows, const Body& body) {
  constexpr std::int64_t kTaskBytes = 64 << 10;
  const std::int64_t per_task =
      std::max<std::int64_t>(1, kTaskBytes / (4 * std::max<std::int64_t>(1, hidden_)));
  pool_.run((num_rows + per_task - 1) / per_task, [&](std::int64_t task, int thread) {
    const std::int64_t end = std::min(num_rows, (task + 1) * per_task);
    for (std::int64_t row = task * per_task; row < end; ++row) body(row, thread);
  });
}

// The same for the received copies of a part.
template <class Body>
void HostMovingRows::for_each_received(RowPart part, const Body& body) {
  const std::size_t me = index(plan_.rank);
  std::int64_t begin = plan_.recv_offsets[me], end = plan_.recv_offsets[me + 1];
  if (!plan_.separates_own) end = begin;  // then all copies are among the others
  if (part == RowPart::kOwn) {
    return for_each_row(end - begin, [&](std::int64_t i, int thread) { body(begin + i, thread); });
  }
  for_each_row(plan_.num_received() - (end - begin),
               [&](std::int64_t i, int thread) { body(i < begin ? i : i + end - begin, thread); });
}

RowStore HostMovingRows::lay_out(std::span<const std::int64_t> offsets, Buffer& buffer,
                                 const Buffer& own) {
  const std::size_t me = index(plan_.rank);
  const std::int64_t num_own = offsets[me + 1] - offsets[me];
  const std::int64_t num_on_the_wire = offsets.back() - num_own;
  buffer = buffers_.take(num_on_the_wire * hidden_ * element_bytes(type_));
  return {.wire = {buffer.data.get(), type_, num_on_the_wire, hidden_, hidden_},
          .own = {own.data.get(), ElementType::kF32, num_own, hidden_, hidden_},
          .own_begin = offsets[me],
          .own_end = offsets[me + 1]};
}

void HostMovingRows::begin(RowWay way, std::int64_t hidden) {
  hidden_ = hidden;
  WayRows& rows = rows_of_way(way);
  rows.offsets = offsets_of_way(plan_, way);
  // Of a dispatch that is kept, only what it has received is.
  if (way == RowWay::kCombine) buffers_.give_back(dispatch_.send_buffer);
  const std::size_t me = index(plan_.rank);
  const std::int64_t num_own = rows.offsets.send[me + 1] - rows.offsets.send[me];
  rows.own_buffer = buffers_.take(num_own * hidden * element_bytes(ElementType::kF32));
  rows.sent = lay_out(rows.offsets.send, rows.send_buffer, rows.own_buffer);
  rows.received = lay_out(rows.offsets.recv, rows.recv_buffer, rows.own_buffer);
  scratch_.resize(std::size_t(pool_.num_threads()) * std::size_t(hidden));
}

void HostMovingRows::end(RowWay way) {
  WayRows& rows = rows_of_way(way);
  for (Buffer* buffer : {&rows.send_buffer, &rows.recv_buffer, &rows.own_buffer}) {
    buffers_.give_back(*buffer);
  }
}

void HostMovingRows::gather(MatrixView<const float> x) {
  for_each_row(plan_.num_sent(), [&](std::int64_t row, int) {
    const std::int32_t item = plan_.send_item[std::size_t(row)];
    if (item < plan_.num_tokens) dispatch_.sent.encode(x.row(item), row);
  });
}

void HostMovingRows::forward_relayed() {
  for_each_row(plan_.num_sent(), [&](std::int64_t row, int thread) {
    const std::int64_t relayed = plan_.send_item[std::size_t(row)] - plan_.num_tokens;
    if (relayed < 0) return;
    dispatch_.received.decode(plan_.relay_row[std::size_t(relayed)], scratch(thread));
    dispatch_.sent.encode(scratch(thread), row);  // exact: it was rounded before
  });
}

void HostMovingRows::spread(RowPart part, MatrixView<float> rows) {
  for_each_received(part, [&](std::int64_t copy, int) {
    const auto begin = plan_.choice_offsets[std::size_t(copy)],
               end = plan_.choice_offsets[std::size_t(copy) + 1];
    for (std::int64_t choice = begin; choice < end; ++choice) {
      dispatch_.received.decode(copy, rows.row(plan_.choice_row[std::size_t(choice)]));
    }
  });
}

// What was received on the wire comes first, then what stayed on this rank.
GatheredRows HostMovingRows::received() {
  const RowStore& store = dispatch_.received;
  if (row_source_.empty()) {
    row_source_.resize(std::size_t(plan_.num_rows()));
    for (std::int64_t copy = 0; copy < plan_.num_received(); ++copy) {
      const auto [rows, r] = store.place(copy);
      const std::int64_t source = rows == &store.wire ? r : store.wire.rows() + r;
      for (auto choice = plan_.choice_offsets[std::size_t(copy)];
           choice < plan_.choice_offsets[std::size_t(copy) + 1]; ++choice) {
        row_source_[std::size_t(plan_.choice_row[std::size_t(choice)])] = std::int32_t(source);
      }
    }
  }
  return {store.wire, row_source_, store.own};
}

void HostMovingRows::reduce(RowPart part, MatrixView<const float> rows, const RowScale& scale) {
  const std::span<const float> routing_weights =
      plan_.returns_choices ? std::span<const float>() : plan_.row_weight;
  const std::span<const float> weights = scale ? *scale : routing_weights;
  for_each_received(part, [&](std::int64_t copy, int thread) {
    const auto begin = plan_.choice_offsets[std::size_t(copy)],
               end = plan_.choice_offsets[std::size_t(copy) + 1];
    if (begin == end) return;  // to be forwarded
    const auto row_of = [&](std::int64_t choice) {
      return std::size_t(plan_.choice_row[std::size_t(choice)]);
    };
    const auto row = [&](std::int64_t choice) { return rows.row(std::int64_t(row_of(choice))); };
    const auto weight = [&](std::int64_t choice) {
      return weights.empty() ? 1.0F : weights[row_of(choice)];
    };
    const std::span<float> sum = scratch(thread);
    if (plan_.returns_choices || end - begin == 1) {
      for (std::int64_t choice = begin; choice < end; ++choice) {
        if (!weights.empty()) scale_row(row(choice), weight(choice), sum);
        combine_.received.encode(weights.empty() ? std::span<const float>(row(choice)) : sum,
                                 plan_.returns_choices ? choice : copy);
      }
      return;
    }
    scale_row(row(begin), weight(begin), sum);
    for (std::int64_t choice = begin + 1; choice < end; ++choice) {
      add_weighted(std::as_bytes(row(choice)).data(), ElementType::kF32, weight(choice), sum);
    }
    combine_.received.encode(sum, copy);
  });
}

void HostMovingRows::sum_relayed() {
  for_each_row(plan_.num_relayed(), [&](std::int64_t relayed, int thread) {
    const auto item = std::size_t(plan_.num_tokens + relayed);
    const std::span<float> sum = scratch(thread);
    std::ranges::fill(sum, 0.0F);
    for (auto i = plan_.return_offsets[item]; i < plan_.return_offsets[item + 1]; ++i) {
      combine_.sent.add(plan_.return_row[std::size_t(i)], 1, sum);
    }
    combine_.received.encode(sum, plan_.relay_row[std::size_t(relayed)]);
  });
}

void HostMovingRows::add_returns(bool applies_weights, MatrixView<float> sum) {
  applies_weights = applies_weights && !plan_.return_weight.empty();
  for_each_row(plan_.num_tokens, [&](std::int64_t t, int) {
    const auto begin = plan_.return_offsets[std::size_t(t)],
               end = plan_.return_offsets[std::size_t(t) + 1];
    for (auto i = std::size_t(begin); i < std::size_t(end); ++i) {
      combine_.sent.add(plan_.return_row[i], applies_weights ? plan_.return_weight[i] : 1,
                        sum.row(t));
    }
  });
}

// The rows that are exchanged with a peer lie one after the other.
std::span<std::byte> HostMovingRows::part_of(const RowStore& store,
                                             std::span<const std::int64_t> offsets,
                                             RankId peer) const {
  const auto begin = offsets[index(peer)], end = offsets[index(peer) + 1];
  if (begin == end) return {};
  const auto [rows, r] = store.place(begin);
  return rows->rows(r, r + end - begin).bytes();
}

std::unique_ptr<Exchange> HostMovingRows::exchange(RowWay way, std::span<const RankId> peers,
                                                   std::string label) {
  const WayRows& rows = rows_of_way(way);
  const ExchangeParts parts = parts_of_exchange(
      way, peers, plan_.rank,
      [&](RankId peer) { return part_of(rows.sent, rows.offsets.send, peer); },
      [&](RankId peer) { return part_of(rows.received, rows.offsets.recv, peer); });
  return transport_.start(parts.send, parts.recv, std::move(label));
}

}  // namespace

HostRowMover::HostRowMover(Transport& transport, ThreadPool& pool)
    : transport_(transport), pool_(pool), buffers_(std::make_unique<BufferPool>()) {}
HostRowMover::~HostRowMover() = default;

std::unique_ptr<MovingRows> HostRowMover::prepare(const RowPlan& plan, ElementType type) {
  return std::make_unique<HostMovingRows>(transport_, pool_, *buffers_, plan, type);
}

void HostRowMover::weigh_gradients(const RowGradients& rows) {
  constexpr std::int64_t kRowsOfTask = 16;
  const std::int64_t num_tasks = (rows.end - rows.first + kRowsOfTask - 1) / kRowsOfTask;
  pool_.run(num_tasks, [&](std::int64_t task, int) {
    const std::int64_t first = rows.first + task * kRowsOfTask;
    for (std::int64_t r = first; r < std::min(rows.end, first + kRowsOfTask); ++r) {
      const std::span<float> gradient = rows.gradients.row(r);
      rows.products[std::size_t(r)] = product_of_rows(rows.outputs.row(r), gradient);
      for (float& v : gradient) v = rows.weights[std::size_t(r)] * v;
    }
  });
}

}  // namespace c2r
