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

// What one rank sends or receives over each of its two links.
struct LinkLoad {
  std::int64_t copies = 0;     // in the volume's counts
  std::int64_t num_peers = 0;  // with some of them
};
struct RankTraffic {
  LinkLoad intra_node, inter_node;
};

// Scales counts of the volume to the batch, and knows what a copy costs in one direction.
struct CopyCost {
  double scale = 1, bytes = 0;
  bool is_message = false;

  double seconds(const LinkLoad& load, const Link& link) const {
    if (load.copies == 0) return 0;
    const double copies = static_cast<double>(load.copies) * scale;
    const double messages = is_message ? copies : static_cast<double>(load.num_peers);
    return copies * bytes / link.bandwidth_bytes_per_s + messages * link.message_s + link.latency_s;
  }
};

// The slowest link in one direction of time; reversing every copy swaps sent and received, whose
// maximum this is, so that dispatch and combine differ in bytes only.
double slowest_link_s(const Volume& volume, const Cluster& cluster, const CopyCost& cost) {
  const auto ep_size = static_cast<std::size_t>(cluster.ep_size());
  std::vector<RankTraffic> sent(ep_size), received(ep_size);
  for (std::int32_t src = 0; src < cluster.ep_size(); ++src) {
    for (std::int32_t dst = 0; dst < cluster.ep_size(); ++dst) {
      const std::int64_t copies = volume.link_copies(src, dst);
      if (src == dst || copies == 0) continue;
      const bool is_intra = cluster.node_of(RankId{src}) == cluster.node_of(RankId{dst});
      const auto level = is_intra ? &RankTraffic::intra_node : &RankTraffic::inter_node;
      for (LinkLoad* const load : {&(at(sent, src).*level), &(at(received, dst).*level)}) {
        load->copies += copies;
        ++load->num_peers;
      }
    }
  }
  double slowest = 0;
  for (const auto& ranks : {sent, received}) {
    for (const RankTraffic& rank : ranks) {
      slowest = std::max({slowest, cost.seconds(rank.intra_node, cluster.intra_node),
                          cost.seconds(rank.inter_node, cluster.inter_node)});
    }
  }
  return slowest;
}

// How many slots of each rank a token of the batch is expected to choose. [ep_size]
std::vector<double> touched_slots(const Volume& volume, const LayerTimeOptions& options,
                                  MatrixView<const std::int64_t> choices_of_expert) {
  std::vector<double> touched(volume.choices.size());
  if (volume.num_tokens == 0) return touched;
  const auto batch = static_cast<double>(options.batch_tokens.value_or(volume.num_tokens));
  const auto tokens = static_cast<double>(volume.num_tokens * volume.denominator);
  for (std::int64_t e = 0; e < choices_of_expert.rows(); ++e) {
    for (std::int64_t rank = 0; rank < choices_of_expert.cols(); ++rank) {
      const double share = std::min(1.0, static_cast<double>(choices_of_expert(e, rank)) / tokens);
      at(touched, rank) += 1 - std::pow(1 - share, batch);
    }
  }
  return touched;
}

// The seconds of each rank's experts. [ep_size]
std::vector<double> expert_seconds(const Volume& volume, const Cluster& cluster,
                                   const LayerTimeOptions& options,
                                   MatrixView<const std::int64_t> choices_of_expert) {
  std::vector<double> seconds;
  const double scale = batch_scale(volume, options);
  for (const std::int64_t choices : volume.choices) {
    seconds.push_back(static_cast<double>(choices) * scale * options.flop_per_choice /
                      *cluster.device_flop_per_s);
  }
  if (options.weight_bytes_per_expert == 0) return seconds;
  const auto touched = touched_slots(volume, options, choices_of_expert);
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) {
    seconds[rank] = std::max(seconds[rank], touched[rank] * options.weight_bytes_per_expert /
                                                *cluster.memory_bytes_per_s);
  }
  return seconds;
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
  C2R_REQUIRE(
      std::isfinite(options.weight_bytes_per_expert) && options.weight_bytes_per_expert >= 0,
      kInvalidArgument, "weight_bytes_per_expert is {}, but must be at least 0",
      options.weight_bytes_per_expert);
  C2R_REQUIRE(options.weight_bytes_per_expert == 0 || cluster.memory_bytes_per_s, kInvalidArgument,
              "the time of reading weights needs the cluster's memory_bytes_per_s");
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
                                      const LayerTimeOptions& options,
                                      MatrixView<const std::int64_t> choices_of_expert) {
  check_options(volume, cluster, options);
  C2R_REQUIRE(options.weight_bytes_per_expert == 0 || choices_of_expert.cols() == cluster.ep_size(),
              kInvalidArgument,
              "the time of reading weights needs the choices of each expert on {} ranks, not {}",
              cluster.ep_size(), choices_of_expert.cols());
  const auto seconds = expert_seconds(volume, cluster, options, choices_of_expert);
  const auto slowest = std::ranges::max_element(seconds);
  CopyCost cost{.scale = batch_scale(volume, options),
                .bytes = static_cast<double>(options.format.dispatch_copy_bytes()),
                .is_message = options.is_message_per_copy};
  PredictedLayerTime time{
      .predicted_compute_s = *slowest,
      .predicted_dispatch_s = slowest_link_s(volume, cluster, cost),
      .slowest_compute_rank = RankId{static_cast<std::int32_t>(slowest - seconds.begin())}};
  cost.bytes = static_cast<double>(options.format.combine_copy_bytes());
  time.predicted_combine_s = slowest_link_s(volume, cluster, cost);
  const double communication = time.predicted_dispatch_s + time.predicted_combine_s;
  time.predicted_total_s = options.overlap == Overlap::kAdded
                               ? communication + time.predicted_compute_s
                               : std::max(communication, time.predicted_compute_s);
  return time;
}

}  // namespace c2r
