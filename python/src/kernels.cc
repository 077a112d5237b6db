// Checks the arrays of the kernels of c2r.torch's operators, and starts them.
#include "python/src/kernels.h"

#include <nanobind/stl/optional.h>

#include <cstddef>
#include <limits>
#include <optional>

#include "c2r/core/error.h"

namespace c2r::python {
namespace {

using WritableArray = nb::ndarray<>;

constexpr std::int64_t kAnyLength = -1;
constexpr nb::dlpack::dtype kBfloat16{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat), 16,
                                      1};
constexpr nb::dlpack::dtype kFloat16{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16,
                                     1};

ElementType float_type_of(const AnyArray& array) {
  if (array.dtype() == kBfloat16) return ElementType::kBf16;
  return array.dtype() == kFloat16 ? ElementType::kF16 : ElementType::kF32;
}

AnyArray view_of(const WritableArray& array) {
  return AnyArray(array.handle());
}

// Checks the arrays of one kernel, which are on one device.
class KernelArguments {
 public:
  explicit KernelArguments(const KernelDevice& device) : device_(device) {}

  using Types = std::initializer_list<nb::dlpack::dtype>;
  using Shape = std::initializer_list<std::int64_t>;

  void check(const AnyArray& array, const char* name, Types types, Shape shape) {
    check_array(array, name, types, shape.size(), device_.place);
    if (device_id_ < 0) device_id_ = array.device_id();
    C2R_REQUIRE(array.device_id() == device_id_, kInvalidArgument,
                "{} is on device {}, but the first array is on device {}", name, array.device_id(),
                device_id_);
    std::size_t axis = 0;
    for (const std::int64_t length : shape) {
      C2R_REQUIRE(length == kAnyLength || extent(array, axis) == length, kInvalidArgument,
                  "axis {} of {} has length {}, but the other arrays need {}", axis, name,
                  extent(array, axis), length);
      ++axis;
    }
  }
  ElementType check_floats(const AnyArray& array, const char* name, Shape shape) {
    check(array, name, {nb::dtype<float>(), kBfloat16, kFloat16}, shape);
    return float_type_of(array);
  }
  void check_same_type(const AnyArray& array, const char* name, const AnyArray& as, Shape shape) {
    check(array, name, {as.dtype()}, shape);
  }

  template <class Kernel>
  void launch(const Kernel& kernel, std::uintptr_t stream) const {
    constexpr std::int64_t kMaxBlocks = std::numeric_limits<std::int32_t>::max();
    C2R_REQUIRE(kernel.num_blocks() <= kMaxBlocks, kUnsupported,
                "a kernel takes at most {} rows, not {}", kMaxBlocks, kernel.num_blocks());
    if (kernel.num_blocks() == 0) return;
    const nb::gil_scoped_release released;
    device_.launch(kernel, device_id_, stream);
  }

 private:
  const KernelDevice& device_;
  int device_id_ = -1;
};

template <class T>
const T* elements(const AnyArray& array) {
  return static_cast<const T*>(array.data());
}
template <class T>
T* writable_elements(const WritableArray& array) {
  return static_cast<T*>(array.data());
}

void choose(const KernelDevice& device, const AnyArray& logits, const std::optional<AnyArray>& mask,
            const WritableArray& topk_idx, std::uintptr_t stream) {
  KernelArguments arguments(device);
  const ElementType type = arguments.check_floats(logits, "logits", {kAnyLength, kAnyLength});
  const std::int64_t num_experts = extent(logits, 1);
  C2R_REQUIRE(1 <= num_experts && num_experts <= kMaxSelectExperts, kUnsupported,
              "a kernel chooses among 1 to {} experts, not {}", kMaxSelectExperts, num_experts);
  if (mask) arguments.check(*mask, "mask", {nb::dtype<bool>()}, {num_experts, num_experts});
  arguments.check(view_of(topk_idx), "topk_idx", {nb::dtype<std::int64_t>()},
                  {extent(logits, 0), kAnyLength});
  const std::int64_t top_k = extent(view_of(topk_idx), 1);
  C2R_REQUIRE(1 <= top_k && top_k <= num_experts, kInvalidArgument, "top_k is {}, expected [1, {}]",
              top_k, num_experts);
  arguments.launch(ChooseExperts{.logits = elements<std::byte>(logits),
                                 .type = type,
                                 .num_tokens = extent(logits, 0),
                                 .num_experts = static_cast<std::int32_t>(num_experts),
                                 .top_k = static_cast<std::int32_t>(top_k),
                                 .mask = mask ? elements<bool>(*mask) : nullptr,
                                 .topk_idx = writable_elements<std::int64_t>(topk_idx)},
                   stream);
}

void sum_by_source(const KernelDevice& device, const AnyArray& rows,
                   const std::optional<AnyArray>& weights, const AnyArray& order,
                   const AnyArray& offsets, const WritableArray& sums, std::uintptr_t stream) {
  KernelArguments arguments(device);
  const ElementType type = arguments.check_floats(rows, "rows", {kAnyLength, kAnyLength});
  const std::int64_t num_rows = extent(rows, 0), width = extent(rows, 1);
  if (weights) arguments.check(*weights, "weights", {nb::dtype<float>()}, {num_rows});
  arguments.check(order, "order", {nb::dtype<std::int64_t>()}, {num_rows});
  arguments.check(offsets, "offsets", {nb::dtype<std::int64_t>()}, {kAnyLength});
  const std::int64_t num_sources = extent(offsets, 0) - 1;
  C2R_REQUIRE(num_sources >= 0, kInvalidArgument, "offsets are empty, expected at least one");
  arguments.check_same_type(view_of(sums), "sums", rows, {num_sources, width});
  arguments.launch(SumBySource{.rows = elements<std::byte>(rows),
                               .weights = weights ? elements<float>(*weights) : nullptr,
                               .order = elements<std::int64_t>(order),
                               .offsets = elements<std::int64_t>(offsets),
                               .sums = writable_elements<std::byte>(sums),
                               .num_sources = num_sources,
                               .width = width,
                               .type = type},
                   stream);
}

void sum_by_source_gradients(const KernelDevice& device, const AnyArray& dsums,
                             const AnyArray& rows, const AnyArray& weights, const AnyArray& index,
                             const WritableArray& drows, const WritableArray& dweights,
                             std::uintptr_t stream) {
  KernelArguments arguments(device);
  const ElementType type = arguments.check_floats(rows, "rows", {kAnyLength, kAnyLength});
  const std::int64_t num_rows = extent(rows, 0), width = extent(rows, 1);
  arguments.check_same_type(dsums, "dsums", rows, {kAnyLength, width});
  arguments.check(weights, "weights", {nb::dtype<float>()}, {num_rows});
  arguments.check(index, "index", {nb::dtype<std::int64_t>()}, {num_rows});
  arguments.check_same_type(view_of(drows), "drows", rows, {num_rows, width});
  arguments.check(view_of(dweights), "dweights", {nb::dtype<float>()}, {num_rows});
  arguments.launch(SumBySourceGradients{.dsums = elements<std::byte>(dsums),
                                        .rows = elements<std::byte>(rows),
                                        .weights = elements<float>(weights),
                                        .index = elements<std::int64_t>(index),
                                        .drows = writable_elements<std::byte>(drows),
                                        .dweights = writable_elements<float>(dweights),
                                        .num_rows = num_rows,
                                        .width = width,
                                        .type = type},
                   stream);
}

}  // namespace

void add_kernels(nb::module_& module, const KernelDevice& device) {
  module.def(
      "_choose",
      [device](const AnyArray& logits, const std::optional<AnyArray>& mask,
               const WritableArray& topk_idx,
               std::uintptr_t stream) { choose(device, logits, mask, topk_idx, stream); },
      nb::arg("logits").noconvert(), nb::arg("mask").noconvert().none(),
      nb::arg("topk_idx").noconvert(), nb::arg("stream"));
  module.def(
      "_sum_by_source",
      [device](const AnyArray& rows, const std::optional<AnyArray>& weights, const AnyArray& order,
               const AnyArray& offsets, const WritableArray& sums, std::uintptr_t stream) {
        sum_by_source(device, rows, weights, order, offsets, sums, stream);
      },
      nb::arg("rows").noconvert(), nb::arg("weights").noconvert().none(),
      nb::arg("order").noconvert(), nb::arg("offsets").noconvert(), nb::arg("sums").noconvert(),
      nb::arg("stream"));
  module.def(
      "_sum_by_source_gradients",
      [device](const AnyArray& dsums, const AnyArray& rows, const AnyArray& weights,
               const AnyArray& index, const WritableArray& drows, const WritableArray& dweights,
               std::uintptr_t stream) {
        sum_by_source_gradients(device, dsums, rows, weights, index, drows, dweights, stream);
      },
      nb::arg("dsums").noconvert(), nb::arg("rows").noconvert(), nb::arg("weights").noconvert(),
      nb::arg("index").noconvert(), nb::arg("drows").noconvert(), nb::arg("dweights").noconvert(),
      nb::arg("stream"));
}

}  // namespace c2r::python
