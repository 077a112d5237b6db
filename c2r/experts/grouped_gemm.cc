// Chooses a backend for each product, cuts the products into tasks, and runs the tasks on a pool.
#include "c2r/experts/grouped_gemm.h"

#include <algorithm>
#include <array>

#include "c2r/core/error.h"
#include "c2r/experts/backends_internal.h"

namespace c2r {
namespace {

// A block of packed rows and a block of weights stay together in a second-level cache of 512 KiB or
// more while they are multiplied.
constexpr std::int64_t kBlockBytes = 256 << 10;
constexpr std::int64_t kAlignBytes = 64;

constexpr GemmBackend kGemmBackends[] = {
#ifdef __x86_64__
    {"avx512-bf16", avx512_bf16::why_not, avx512_bf16::packed_row_bytes, avx512_bf16::pack,
     avx512_bf16::multiply},
#endif
    {"vectors", vectors::why_not, vectors::packed_row_bytes, vectors::pack, vectors::multiply},
    {"reference", reference::why_not, reference::packed_row_bytes, reference::pack,
     reference::multiply},
};

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

constexpr std::int64_t num_blocks(std::int64_t n, std::int64_t size) {
  return (n + size - 1) / size;
}

void check(const GemmGroup& group) {
  const RowsView& w = group.weight;
  C2R_REQUIRE(group.x.cols() == w.cols() && group.out.cols() == w.rows() &&
                  group.x.num_rows() == group.num_rows() &&
                  (group.bias.empty() || std::ssize(group.bias) == w.rows()),
              kInvalidArgument,
              "cannot multiply x [{}, {}] with weights [{}, {}] and {} biases into [{}, {}]",
              group.x.num_rows(), group.x.cols(), w.rows(), w.cols(), group.bias.size(),
              group.out.rows(), group.out.cols());
  group.x.check();
}

// The values of a row: where they lie, if they are f32, or in `widened` [cols].
const float* values_of_row(const GatheredRows& rows, std::int64_t r, std::span<float> widened) {
  const auto [elements, type] = rows.row(r);
  if (type == ElementType::kF32) return reinterpret_cast<const float*>(elements);
  to_f32(elements, type, widened);
  return widened.data();
}

}  // namespace

std::span<const GemmBackend> gemm_backends() {
  return kGemmBackends;
}

const GemmBackend& choose_gemm_backend(ElementType weights, Arithmetic arithmetic,
                                       std::string_view name) {
  std::string reasons;
  for (const GemmBackend& backend : kGemmBackends) {
    if (!name.empty() && backend.name != name) continue;
    const std::string reason = backend.why_not(weights, arithmetic);
    if (reason.empty()) return backend;
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", backend.name, reason);
  }
  C2R_THROW(kUnsupported, "no GEMM backend {}can compute this: {}",
            name.empty() ? "" : fmt::format("'{}' ", name), reasons.empty() ? "unknown" : reasons);
}

// A group with its backend and its blocks.
struct GroupedGemm::Planned {
  GemmGroup group;
  const GemmBackend* backend = nullptr;
  std::int64_t packed_row_bytes = 0, packed_offset = 0;
  bool is_packed_before = false;  // by the group before it
  std::int64_t rows_per_block = 0, outputs_per_block = 0;
  std::int64_t first_task = 0;  // of all groups' tasks

  std::int64_t row_blocks() const { return num_blocks(group.num_rows(), rows_per_block); }
  std::int64_t num_tasks() const {
    return row_blocks() * num_blocks(group.weight.rows(), outputs_per_block);
  }
};

GroupedGemm::GroupedGemm(Arithmetic arithmetic, ThreadPool& pool, std::string_view backend)
    : arithmetic_(arithmetic), pool_(&pool), backend_(backend) {}

std::vector<GroupedGemm::Planned> GroupedGemm::plan(std::span<const GemmGroup> groups) {
  std::vector<Planned> planned;
  std::int64_t num_bytes = 0, num_tasks = 0, max_inputs = 0;
  for (const GemmGroup& group : groups) {
    check(group);
    if (group.num_rows() == 0 || group.weight.rows() == 0) continue;
    Planned next{.group = group,
                 .backend = &choose_gemm_backend(group.weight.type(), arithmetic_, backend_)};
    next.packed_row_bytes = next.backend->packed_row_bytes(group.x.cols());
    if (!planned.empty() && planned.back().backend == next.backend &&
        group.x.is_same_as(planned.back().group.x)) {
      next.is_packed_before = true;
      next.packed_offset = planned.back().packed_offset;
    } else {
      next.packed_offset = num_bytes;
      num_bytes += round_up(group.num_rows() * next.packed_row_bytes, kAlignBytes);
    }
    const std::int64_t weight_row_bytes = std::max<std::int64_t>(1, group.weight.row_bytes());
    const std::int64_t row_bytes = std::max<std::int64_t>(1, next.packed_row_bytes);
    next.rows_per_block = round_up(std::max<std::int64_t>(1, kBlockBytes / row_bytes), kPanelRows);
    // A multiple of the 6 outputs of a tile.
    next.outputs_per_block =
        round_up(std::clamp<std::int64_t>(kBlockBytes / weight_row_bytes, 1, 1 << 16), 6);
    next.first_task = num_tasks;
    num_tasks += next.num_tasks();
    max_inputs = std::max(max_inputs, group.x.cols());
    planned.push_back(next);
  }
  if (std::ssize(packed_) < num_bytes + kAlignBytes) {
    packed_.resize(static_cast<std::size_t>(num_bytes + kAlignBytes));
  }
  widened_.resize(static_cast<std::size_t>(pool_->num_threads() * kPanelRows * max_inputs));
  return planned;
}

void GroupedGemm::pack(std::span<const Planned> planned) {
  struct Panel {
    const Planned* group;
    std::int64_t first_row;
  };
  std::vector<Panel> panels;
  for (const Planned& p : planned) {
    if (p.is_packed_before) continue;
    for (std::int64_t row = 0; row < p.group.num_rows(); row += kPanelRows) {
      panels.push_back({&p, row});
    }
  }
  constexpr std::int64_t kPanelsPerTask = 8;
  std::byte* const packed = packed_begin();
  const auto pack_some = [&](std::int64_t task, int thread) {
    const auto per_thread = std::int64_t(widened_.size()) / pool_->num_threads();
    const std::int64_t end =
        std::min<std::int64_t>((task + 1) * kPanelsPerTask, std::ssize(panels));
    for (std::int64_t i = task * kPanelsPerTask; i < end; ++i) {
      const auto [p, row] = panels[static_cast<std::size_t>(i)];
      const std::int64_t count = std::min(kPanelRows, p->group.num_rows() - row);
      std::array<const float*, kPanelRows> rows;
      const std::int64_t num_inputs = p->group.x.cols();
      for (std::int64_t r = 0; r < count; ++r) {
        float* const widened = widened_.data() + thread * per_thread + r * num_inputs;
        rows[static_cast<std::size_t>(r)] =
            values_of_row(p->group.x, row + r, {widened, static_cast<std::size_t>(num_inputs)});
      }
      p->backend->pack(std::span(rows).first(static_cast<std::size_t>(count)), num_inputs,
                       packed + p->packed_offset + row * p->packed_row_bytes);
    }
  };
  pool_->run(num_blocks(std::ssize(panels), kPanelsPerTask), pack_some);
}

std::byte* GroupedGemm::packed_begin() {
  const auto address = reinterpret_cast<std::uintptr_t>(packed_.data());
  return packed_.data() + (kAlignBytes - address % kAlignBytes) % kAlignBytes;
}

void GroupedGemm::run(std::span<const GemmGroup> groups) {
  const std::vector<Planned> planned = plan(groups);
  if (planned.empty()) return;
  pack(planned);
  const std::byte* const packed = packed_begin();
  pool_->run(planned.back().first_task + planned.back().num_tasks(), [&](std::int64_t task, int) {
    const auto after = std::ranges::upper_bound(planned, task, {}, &Planned::first_task);
    const Planned& p = *std::prev(after);
    // Consecutive tasks, which run at the same time, multiply the same weights by different rows.
    const std::int64_t block = task - p.first_task;
    const std::int64_t row = block % p.row_blocks() * p.rows_per_block;
    const std::int64_t output = block / p.row_blocks() * p.outputs_per_block;
    const RowsView& weight = p.group.weight;
    const std::int64_t last_output = std::min(output + p.outputs_per_block, weight.rows());
    p.backend->multiply({.x = packed + p.packed_offset + row * p.packed_row_bytes,
                         .num_rows = std::min(p.rows_per_block, p.group.num_rows() - row),
                         .weight = weight.rows(output, last_output),
                         .bias = p.group.bias.empty() ? nullptr : p.group.bias.data() + output,
                         .out = p.group.out.data() + row * p.group.out.cols() + output,
                         .out_stride = p.group.out.cols()});
  });
}

}  // namespace c2r
