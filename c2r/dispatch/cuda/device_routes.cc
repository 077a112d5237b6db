// The memory around the kernels that make routes, and the one wait for their counts.
#include "c2r/dispatch/cuda/device_routes.h"

#include <cstring>
#include <limits>
#include <span>

#include "c2r/core/error.h"
#include "c2r/dispatch/cuda/route_kernels-inl.h"

namespace c2r {
namespace {

// So many threads are in fewer blocks than a grid may have, 2^31.
constexpr std::int64_t kMaxThreads = (std::int64_t{1} << 31) * kRouteThreads;

// [num_experts]: the bin to which this rank sends the tokens of each expert.
std::vector<std::int32_t> bins_of_experts(const Placement& placement, const Cluster& cluster,
                                          CopyMode mode, RankId rank) {
  constexpr std::int32_t kNone = -1;
  std::vector<std::int32_t> bins(std::size_t(placement.num_experts), kNone);
  for (std::int32_t r = 0; r < placement.ep_size(); ++r) {
    const std::int32_t node = cluster.node_of(RankId{r});
    const bool is_relayed = mode == CopyMode::kPerNode && node != cluster.node_of(rank);
    const auto target = std::int32_t(is_relayed ? cluster.peer_on(node, rank) : RankId{r});
    for (std::int32_t slot = 0; slot < placement.slots_per_rank(); ++slot) {
      const ExpertId expert = placement.slots(r, slot);
      if (expert == kNoExpert) continue;
      C2R_REQUIRE(bins[index(expert)] == kNone, kUnsupported,
                  "a device makes routes without replicas, but expert {} has several slots; use "
                  "Dispatcher::make_handle()",
                  index(expert));
      bins[index(expert)] =
          mode == CopyMode::kPerExpert ? r * placement.slots_per_rank() + slot : target;
    }
  }
  return bins;
}

std::int32_t* i32(const DeviceBuffer& buffer) {
  return reinterpret_cast<std::int32_t*>(buffer.data());
}
std::int64_t* i64(const DeviceBuffer& buffer) {
  return reinterpret_cast<std::int64_t*>(buffer.data());
}

}  // namespace

DeviceRouteMaker::DeviceRouteMaker(const Placement& placement, const DispatchOptions& options,
                                   RankId rank, DeviceStream& stream, RouteLauncher& launcher)
    : ep_size_(placement.ep_size()), stream_(stream), launcher_(launcher) {
  const Cluster& cluster = options.traffic.cluster;
  const CopyMode mode = options.traffic.copy_mode;
  C2R_REQUIRE(cluster.ep_size() == ep_size_, kInvalidArgument,
              "the cluster has {}x{} ranks, but the placement {}", cluster.num_nodes,
              cluster.ranks_per_node, ep_size_);
  C2R_REQUIRE(mode != CopyMode::kAllGather, kInvalidArgument,
              "tokens are sent per-expert, per-rank or per-node; not all-gather");
  copies_each_choice_ = mode == CopyMode::kPerExpert;
  returns_each_choice_ = copies_each_choice_ || !options.sums_before_return;
  bins_per_rank_ = copies_each_choice_ ? placement.slots_per_rank() : 1;
  const std::vector<std::int32_t> bins = bins_of_experts(placement, cluster, mode, rank);
  bin_of_expert_ = DeviceBuffer(stream_, std::ssize(bins) * 4);
  stream_.upload(std::as_bytes(std::span(bins)), bin_of_expert_.data());
}

DeviceRoutes DeviceRouteMaker::make(MatrixView<const ExpertId> topk_idx,
                                    MatrixView<const float> topk_weights) {
  C2R_REQUIRE(topk_idx.rows() == topk_weights.rows() && topk_idx.cols() == topk_weights.cols(),
              kInvalidArgument, "topk_idx is {}x{}, but topk_weights is {}x{}", topk_idx.rows(),
              topk_idx.cols(), topk_weights.rows(), topk_weights.cols());
  const std::int64_t num_choices = topk_idx.rows() * topk_idx.cols();
  C2R_REQUIRE(num_choices <= std::numeric_limits<std::int32_t>::max(), kInvalidArgument,
              "{} tokens in one batch are too many", topk_idx.rows());
  const std::int64_t num_bins = std::int64_t{ep_size_} * bins_per_rank_;
  C2R_REQUIRE(topk_idx.rows() <= kMaxThreads / num_bins, kUnsupported,
              "{} tokens for {} ranks or slots are too many at once; use more chunks",
              topk_idx.rows(), num_bins);
  DeviceRoutes routes{.send_item = {stream_, num_choices * 4},
                      .send_choice = {stream_, num_choices * 4},
                      .return_offsets = {stream_, (topk_idx.rows() + 1) * 8},
                      .return_row = {stream_, num_choices * 4}};
  if (returns_each_choice_) routes.return_weight = {stream_, num_choices * 4};
  RouteKernelTask task{.topk_idx = reinterpret_cast<const std::int32_t*>(topk_idx.data()),
                       .topk_weights = topk_weights.data(),
                       .num_tokens = topk_idx.rows(),
                       .top_k = topk_idx.cols(),
                       .bin_of_expert = i32(bin_of_expert_),
                       .num_bins = num_bins,
                       .copies_each_choice = copies_each_choice_,
                       .returns_each_choice = returns_each_choice_,
                       .send_item = i32(routes.send_item),
                       .send_choice = i32(routes.send_choice),
                       .return_offsets = i64(routes.return_offsets),
                       .return_row = i32(routes.return_row),
                       .return_weight = reinterpret_cast<float*>(routes.return_weight.data())};
  const DeviceBuffer tile_counts(stream_, task.num_tiles() * (2 * num_bins + 1) * 4),
      row_of_choice(stream_, num_choices * 4), offsets(stream_, 2 * (num_bins + 1) * 8);
  task.tile_copies = i32(tile_counts);
  task.tile_choices = task.tile_copies + task.num_tiles() * num_bins;
  task.tile_returns = task.tile_choices + task.num_tiles() * num_bins;
  task.row_of_choice = i32(row_of_choice);
  task.copy_offsets = i64(offsets), task.choice_offsets = task.copy_offsets + num_bins + 1;
  const RouteKernel kernels[] = {{CountRoutes{task}}, {CountReturns{task}}, {ScanTiles{task}},
                                 {ScanBins{task}},    {PlaceRoutes{task}},  {PlaceReturns{task}}};
  for (const RouteKernel& kernel : kernels) launcher_.launch(kernel, stream_);

  const PinnedBuffer counts(stream_, std::ssize(offsets.bytes()) + 8);
  stream_.copy_to_pinned(offsets.bytes(), counts.data());
  stream_.copy_to_pinned(routes.return_offsets.bytes().last(8),
                         counts.data() + offsets.bytes().size());
  stream_.record()->synchronize();
  std::vector<std::int64_t> values(2 * std::size_t(num_bins + 1) + 1);
  std::memcpy(values.data(), counts.data(), values.size() * sizeof(std::int64_t));
  for (std::int64_t bin = 0; bin <= num_bins; bin += bins_per_rank_) {
    routes.send_offsets.push_back(values[std::size_t(bin)]);
    routes.send_choice_offsets.push_back(values[std::size_t(num_bins + 1 + bin)]);
  }
  routes.num_returns = values.back();
  return routes;
}

}  // namespace c2r
