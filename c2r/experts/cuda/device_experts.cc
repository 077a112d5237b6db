// Gives a device the kernels and grouped products of the experts, in the order of the formulas.
#include "c2r/experts/cuda/device_experts.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/experts/cuda/expert_kernels-inl.h"

namespace c2r {
namespace {

constexpr std::int64_t kMaxSize = std::numeric_limits<std::int32_t>::max();

DeviceRows device_rows(const RowsView& rows) {
  return {
      .data = rows.data(), .type = rows.type(), .num_rows = rows.rows(), .stride = rows.stride()};
}

bool can_be_read_by_vectors(const RowsView& rows) {
  return rows.rows() == 0 || (is_aligned_for_vectors(rows.data()) &&
                              rows.stride() * element_bytes(rows.type()) % 16 == 0);
}

void check_device_shapes(const ExpertWeights& expert, std::int64_t hidden,
                         std::int64_t intermediate) {
  C2R_REQUIRE(
      expert.up.rows() == expert.gate.rows() && expert.up.cols() == expert.gate.cols() &&
          expert.down.cols() == expert.gate.rows() && expert.down.rows() == expert.gate.cols(),
      kInvalidArgument, "an expert's gate is [{}, {}], its up [{}, {}] and its down [{}, {}]",
      expert.gate.rows(), expert.gate.cols(), expert.up.rows(), expert.up.cols(),
      expert.down.rows(), expert.down.cols());
  C2R_REQUIRE(expert.hidden() == hidden && expert.intermediate() == intermediate, kUnsupported,
              "a device computes experts of one size, but one is {} x {} and another {} x {}; use "
              "CpuExperts",
              hidden, intermediate, expert.hidden(), expert.intermediate());
  C2R_REQUIRE(hidden > 0 && intermediate > 0 && hidden % kRowVector == 0 &&
                  intermediate % kRowVector == 0 && 2 * intermediate <= kMaxSize &&
                  hidden <= kMaxSize,
              kUnsupported,
              "a device computes experts whose sizes are multiples of {}, but hidden is {} and "
              "intermediate {}; use CpuExperts",
              kRowVector, hidden, intermediate);
}

// Writes the rows of `view` as bf16. @returns the end
Bf16* write_bf16(const RowsView& view, Bf16* to) {
  std::vector<float> row(static_cast<std::size_t>(view.cols()));
  for (std::int64_t r = 0; r < view.rows(); ++r, to += view.cols()) {
    if (view.type() == ElementType::kBf16) {
      std::memcpy(to, view.row(r), static_cast<std::size_t>(view.row_bytes()));
      continue;
    }
    view.read_row(r, row);
    std::ranges::transform(row, to, to_bf16);
  }
  return to;
}

std::byte* address(MatrixView<float> rows) {
  return reinterpret_cast<std::byte*>(rows.data());
}

// Adds [rows, cols] floats.
void add_floats(const float* from, Matrix<double>& to) {
  for (double& value : to.all()) value += double{*from++};
}

}  // namespace

DeviceExperts::DeviceExperts(DeviceStream& stream, GroupedProducts& products,
                             ExpertLauncher& launcher, std::span<const ExpertWeights* const> slots)
    : stream_(stream), products_(products), launcher_(launcher), slots_(slots.size()) {
  const auto first = std::ranges::find_if(slots, [](const auto* slot) { return slot != nullptr; });
  if (first == slots.end()) return;
  hidden_ = (*first)->hidden(), intermediate_ = (*first)->intermediate();
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] == nullptr) continue;
    check_device_shapes(*slots[slot], hidden_, intermediate_);
    upload(slots_[slot], *slots[slot]);
  }
}

void DeviceExperts::upload(Slot& slot, const ExpertWeights& expert) {
  std::vector<Bf16> weights(static_cast<std::size_t>(num_weights()));
  write_bf16(expert.down, write_bf16(expert.up, write_bf16(expert.gate, weights.data())));
  slot.weights = DeviceBuffer(stream_, num_weights() * 2);
  stream_.upload(std::as_bytes(std::span(weights)), slot.weights.data());
}

DeviceExperts::Call DeviceExperts::check_call(std::span<const std::int64_t> offsets,
                                              const GatheredRows& rows,
                                              std::initializer_list<const void*> addresses) const {
  C2R_REQUIRE(offsets.size() == slots_.size() + 1, kInvalidArgument,
              "there are {} slots, but {} offsets; give one more than slots", slots_.size(),
              offsets.size());
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    const std::int64_t num_rows = offsets[slot + 1] - offsets[slot];
    C2R_REQUIRE(!slots_[slot].weights.bytes().empty() || num_rows == 0, kInvalidArgument,
                "slot {} has no expert, but {} rows", slot, num_rows);
    C2R_REQUIRE(num_rows >= 0, kInvalidArgument, "slot {} has {} rows", slot, num_rows);
  }
  const Call call{offsets, offsets.front(), offsets.back() - offsets.front()};
  if (call.num_rows == 0) return call;
  C2R_REQUIRE(call.num_rows <= kMaxSize, kUnsupported,
              "a device computes at most {} rows, not {}; use more chunks", kMaxSize,
              call.num_rows);
  C2R_REQUIRE(rows.cols() == hidden_ && offsets.front() >= 0 && offsets.back() <= rows.num_rows(),
              kInvalidArgument,
              "experts of hidden size {} cannot compute rows {} to {} of rows [{}, {}]", hidden_,
              offsets.front(), offsets.back(), rows.num_rows(), rows.cols());
  C2R_REQUIRE(
      can_be_read_by_vectors(rows.first_rows()) && can_be_read_by_vectors(rows.more_rows()) &&
          std::ranges::all_of(addresses, is_aligned_for_vectors),
      kUnsupported, "a device computes rows that are aligned to 16 bytes, but some are not");
  return call;
}

void DeviceExperts::launch(const ExpertKernel& kernel) {
  launcher_.launch(kernel, stream_);
}

DeviceBuffer DeviceExperts::rows_of(const Call& call, std::int64_t cols) const {
  return {stream_, call.num_rows * cols * 2};
}

DeviceBuffer DeviceExperts::packed(const Call& call, const GatheredRows& rows) {
  DeviceBuffer to = rows_of(call, hidden_);
  launch({PackRows{.from = device_rows(rows.first_rows()),
                   .more = device_rows(rows.more_rows()),
                   .index = rows.index(),
                   .first = call.first,
                   .num_rows = call.num_rows,
                   .cols = hidden_,
                   .packed = to.data()}});
  return to;
}

void DeviceExperts::widen(const Call& call, const DeviceBuffer& packed, MatrixView<float> rows) {
  launch({WidenRows{.packed = packed.data(),
                    .first = call.first,
                    .num_rows = call.num_rows,
                    .cols = hidden_,
                    .rows = address(rows)}});
}

// out = rows W^T for each slot, or rows W: W is the slot's down, or its gate and up.
void DeviceExperts::multiply(const Call& call, const DeviceBuffer& rows, bool by_down,
                             bool transposed, const DeviceBuffer& out) {
  const std::int64_t num_outputs = by_down ? hidden_ : 2 * intermediate_,
                     num_inputs = by_down ? intermediate_ : hidden_;
  const std::int64_t k = transposed ? num_inputs : num_outputs,
                     n = transposed ? num_outputs : num_inputs;
  std::vector<DeviceProduct> products;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    const std::int64_t begin = call.offsets[slot] - call.first,
                       num_rows = call.offsets[slot + 1] - call.offsets[slot];
    if (num_rows == 0) continue;
    products.push_back({.a = bf16_row(rows.data(), begin, k),
                        .b = slots_[slot].weights.data() + (by_down ? 2 * down_offset() : 0),
                        .out = bf16_row(out.data(), begin, n),
                        .m = num_rows,
                        .n = n,
                        .k = k});
  }
  products_.run(transposed ? ProductKind::kTimesTransposed : ProductKind::kTimes, products,
                stream_);
}

// dW += dout^T in for each slot: W is the slot's down, or its gate and up.
void DeviceExperts::add_gradients(const Call& call, const DeviceBuffer& dout,
                                  const DeviceBuffer& in, bool of_down) {
  const std::int64_t num_outputs = of_down ? hidden_ : 2 * intermediate_,
                     num_inputs = of_down ? intermediate_ : hidden_;
  std::vector<DeviceProduct> products;
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    Slot& slot = slots_[s];
    const std::int64_t begin = call.offsets[s] - call.first,
                       num_rows = call.offsets[s + 1] - call.offsets[s];
    if (num_rows == 0) continue;
    if (slot.gradients.bytes().empty()) slot.gradients = DeviceBuffer(stream_, num_weights() * 4);
    products.push_back({.a = bf16_row(dout.data(), begin, num_outputs),
                        .b = bf16_row(in.data(), begin, num_inputs),
                        .out = slot.gradients.data() + (of_down ? 4 * down_offset() : 0),
                        .m = num_outputs,
                        .n = num_inputs,
                        .k = num_rows,
                        .adds = slot.has_gradients});
  }
  products_.run(ProductKind::kTransposedTimes, products, stream_);
}

void DeviceExperts::forward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                            MatrixView<float> out) {
  const Call call = check_call(offsets, rows, {out.data()});
  if (call.num_rows == 0) return;
  DeviceBuffer x = packed(call, rows);
  const DeviceBuffer gate_up = rows_of(call, 2 * intermediate_);
  const DeviceBuffer inner = rows_of(call, intermediate_);
  multiply(call, x, /*by_down=*/false, /*transposed=*/true, gate_up);
  launch({Swiglu{.gate_up = gate_up.data(),
                 .num_rows = call.num_rows,
                 .intermediate = intermediate_,
                 .inner = inner.data()}});
  multiply(call, inner, /*by_down=*/true, /*transposed=*/true, x);  // x is read no more
  widen(call, x, out);
}

void DeviceExperts::backward_on_device(std::span<const std::int64_t> offsets,
                                       const GatheredRows& rows, MatrixView<const float> dout,
                                       MatrixView<float> drows) {
  const Call call = check_call(offsets, rows, {dout.data(), drows.data()});
  if (call.num_rows == 0) return;
  const DeviceBuffer x = packed(call, rows), dy = packed(call, dout);
  const DeviceBuffer gate_up = rows_of(call, 2 * intermediate_);
  const DeviceBuffer inner = rows_of(call, intermediate_);
  multiply(call, x, /*by_down=*/false, /*transposed=*/true, gate_up);
  multiply(call, dy, /*by_down=*/true, /*transposed=*/false, inner);
  launch({SwigluBackward{.gate_up = gate_up.data(),
                         .num_rows = call.num_rows,
                         .intermediate = intermediate_,
                         .inner = inner.data()}});
  add_gradients(call, dy, inner, /*of_down=*/true);
  add_gradients(call, gate_up, x, /*of_down=*/false);
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    if (offsets[slot] != offsets[slot + 1]) slots_[slot].has_gradients = true;
  }
  multiply(call, gate_up, /*by_down=*/false, /*transposed=*/false, x);  // x is read no more
  widen(call, x, drows);
}

void DeviceExperts::backward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                             MatrixView<const float> dout, MatrixView<float> drows,
                             std::span<ExactExpert> dweights) {
  backward_on_device(offsets, rows, dout, drows);
  take_gradients(dweights);
}

DeviceGradients DeviceExperts::gradients(std::int64_t slot) const {
  const Slot& of = slots_.at(static_cast<std::size_t>(slot));
  if (!of.has_gradients) return {};
  const auto* const first = reinterpret_cast<const float*>(of.gradients.data());
  return {.gate_up = first, .down = first + down_offset()};
}

void DeviceExperts::take_gradients(std::span<ExactExpert> dweights) {
  C2R_REQUIRE(dweights.size() == slots_.size(), kInvalidArgument,
              "there are {} slots, but gradients for {}", slots_.size(), dweights.size());
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    const ExactExpert& to = dweights[slot];
    C2R_REQUIRE(
        !slots_[slot].has_gradients ||
            (to.gate.rows() == intermediate_ && to.gate.cols() == hidden_ &&
             to.up.rows() == intermediate_ && to.up.cols() == hidden_ &&
             to.down.rows() == hidden_ && to.down.cols() == intermediate_),
        kInvalidArgument,
        "slot {} has an expert of hidden size {} and intermediate size {}, but the gradients "
        "have another shape; use zero_gradients()",
        slot, hidden_, intermediate_);
  }
  const PinnedBuffer pinned(stream_, num_weights() * 4);
  std::vector<float> values(static_cast<std::size_t>(num_weights()));
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!std::exchange(slots_[slot].has_gradients, false)) continue;
    stream_.copy_to_pinned(slots_[slot].gradients.bytes(), pinned.data());
    stream_.record()->synchronize();
    std::memcpy(values.data(), pinned.data(), values.size() * sizeof(float));
    add_floats(values.data(), dweights[slot].gate);
    add_floats(values.data() + intermediate_ * hidden_, dweights[slot].up);
    add_floats(values.data() + down_offset(), dweights[slot].down);
  }
}

}  // namespace c2r
