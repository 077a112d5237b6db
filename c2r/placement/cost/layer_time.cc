// The layer-time model: the slowest rank's experts and the busiest link, each way.
#include "c2r/placement/cost/layer_time.h"

#include <algorithm>
#include <cmath>

#include "c2r/core/at.h"
#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

constexpr EnumName<Overlap> kOverlaps[] = {{Overlap::kAdded, "added"},
                                           {Overlap::kOverlapped, "overlapped"}};

// Counts of a volume are to be multiplied by this for the batch whose time is asked for.
double batch_scale(const Volume& volume, const LayerTimeOptions& options) {
  const double scale = 1 / static_cast<double>(volume.denominator);
  if (!options.batch_tokens || volume.num_tokens == 0) return scale;
  return scale * static_cast<double>(*options.batch_tokens) /
         static_cast<double>(volume.num_tokens);
}

// What one rank sends or receives over each of its two links, in the volume's counts.
struct RankTraffic {
  std::int64_t intra_node = 0, inter_node = 0;
};

double link_s(std::int64_t copies, double bytes_per_copy, const Link& link) {
  if (copies == 0) return 0;
  return static_cast<double>(copies) * bytes_per_copy / link.bandwidth_bytes_per_s + link.latency_s;
}

// The slowest link in one direction of time; reversing every copy swaps sent and received, whose
// maximum this is, so that dispatch and combine differ in bytes only.
double slowest_link_s(const Volume& volume, const Cluster& cluster, const LayerTimeOptions& options,
                      std::int64_t element_bytes) {
  const auto ep_size = static_cast<std::size_t>(cluster.ep_size());
  std::vector<RankTraffic> sent(ep_size), received(ep_size);
  for (std::int32_t src = 0; src < cluster.ep_size(); ++src) {
    for (std::int32_t dst = 0; dst < cluster.ep_size(); ++dst) {
      if (src == dst) continue;
      const bool is_intra = cluster.node_of(RankId{src}) == cluster.node_of(RankId{dst});
      const auto level = is_intra ? &RankTraffic::intra_node : &RankTraffic::inter_node;
      at(sent, src).*level += volume.link_copies(src, dst);
      at(received, dst).*level += volume.link_copies(src, dst);
    }
  }
  const double bytes_per_copy =
      static_cast<double>(options.format.hidden * element_bytes) * batch_scale(volume, options);
  double slowest = 0;
  for (const auto& ranks : {sent, received}) {
    for (const RankTraffic& rank : ranks) {
      slowest = std::max({slowest, link_s(rank.intra_node, bytes_per_copy, cluster.intra_node),
                          link_s(rank.inter_node, bytes_per_copy, cluster.inter_node)});
    }
  }
  return slowest;
}

void check_options(const Volume& volume, const Cluster& cluster, const LayerTimeOptions& options) {
  check_cluster(cluster);
  check_copy_format(options.format);
  C2R_REQUIRE(volume.link_copies.rows() == cluster.ep_size() &&
                  volume.link_copies.cols() == cluster.ep_size() &&
                  std::ssize(volume.choices) == cluster.ep_size(),
              kInvalidArgument, "the volume is of {} ranks, but the cluster has {}",
              volume.link_copies.rows(), cluster.ep_size());
  C2R_REQUIRE(cluster.device_flop_per_s.has_value(), kInvalidArgument,
              "predicting a layer's time needs the cluster's device_flop_per_s");
  C2R_REQUIRE(std::isfinite(options.flop_per_choice) && options.flop_per_choice > 0,
              kInvalidArgument, "flop_per_choice is {}, but must be positive",
              options.flop_per_choice);
  C2R_REQUIRE(options.batch_tokens.value_or(0) >= 0, kInvalidArgument,
              "batch_tokens is {}, but must be at least 0", options.batch_tokens.value_or(0));
}

}  // namespace

std::string_view name_of(Overlap overlap) {
  return name_in(kOverlaps, overlap);
}

Overlap parse_overlap(std::string_view name) {
  return parse_in(kOverlaps, "overlap is", name);
}

double flop_of_gated_mlp(std::int64_t hidden, std::int64_t intermediate) {
  return 6.0 * static_cast<double>(hidden) * static_cast<double>(intermediate);
}

PredictedLayerTime predict_layer_time(const Volume& volume, const Cluster& cluster,
                                      const LayerTimeOptions& options) {
  check_options(volume, cluster, options);
  const auto busiest = std::ranges::max_element(volume.choices);
  const double choices = static_cast<double>(*busiest) * batch_scale(volume, options);
  PredictedLayerTime time{
      .predicted_compute_s = choices * options.flop_per_choice / *cluster.device_flop_per_s,
      .predicted_dispatch_s =
          slowest_link_s(volume, cluster, options, options.format.dispatch_element_bytes),
      .predicted_combine_s =
          slowest_link_s(volume, cluster, options, options.format.combine_element_bytes),
      .slowest_compute_rank = RankId{static_cast<std::int32_t>(busiest - volume.choices.begin())}};
  const double communication = time.predicted_dispatch_s + time.predicted_combine_s;
  time.predicted_total_s = options.overlap == Overlap::kAdded
                               ? communication + time.predicted_compute_s
                               : std::max(communication, time.predicted_compute_s);
  return time;
}

}  // namespace c2r
