// Copies on each link, by copy mode, from the ranks and nodes that tokens reach.
#include "c2r/placement/cost/volume.h"

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

void check_reach(const Reach& reach, const Cluster& cluster) {
  const std::int64_t ep_size = cluster.ep_size();
  const bool has_ranks =
      std::ssize(reach.num_tokens) == ep_size && reach.choices_on_rank.rows() == ep_size &&
      reach.choices_on_rank.cols() == ep_size && reach.tokens_on_rank.rows() == ep_size &&
      reach.tokens_on_rank.cols() == ep_size;
  C2R_REQUIRE(has_ranks && reach.tokens_on_node.rows() == ep_size &&
                  reach.tokens_on_node.cols() == cluster.num_nodes,
              kInvalidArgument,
              "the reach is of {} ranks on {} nodes, but the cluster has {} on {}",
              reach.tokens_on_rank.cols(), reach.tokens_on_node.cols(), ep_size, cluster.num_nodes);
}

void add_per_node(const Reach& reach, const Cluster& cluster, std::int64_t home,
                  Matrix<std::int64_t>& links) {
  const RankId home_rank{static_cast<std::int32_t>(home)};
  for (std::int32_t node = 0; node < cluster.num_nodes; ++node) {
    const auto relay = static_cast<std::int64_t>(index(cluster.peer_on(node, home_rank)));
    if (relay != home) links(home, relay) += reach.tokens_on_node(home, node);
    for (std::int64_t local = 0; local < cluster.ranks_per_node; ++local) {
      const std::int64_t dst = std::int64_t{node} * cluster.ranks_per_node + local;
      links(relay, dst) += reach.tokens_on_rank(home, dst);
    }
  }
}

void add_home(const Reach& reach, const TrafficModel& traffic, std::int64_t home,
              Matrix<std::int64_t>& links) {
  const CopyMode mode = traffic.copy_mode;
  if (mode == CopyMode::kPerNode) return add_per_node(reach, traffic.cluster, home, links);
  for (std::int64_t dst = 0; dst < links.cols(); ++dst) {
    links(home, dst) += mode == CopyMode::kPerExpert ? reach.choices_on_rank(home, dst)
                        : mode == CopyMode::kPerRank ? reach.tokens_on_rank(home, dst)
                                                     : at(reach.num_tokens, home);
  }
}

void sum_links(const Cluster& cluster, Volume& volume) {
  const std::int32_t ep_size = cluster.ep_size();
  volume.sent.assign(static_cast<std::size_t>(ep_size), 0);
  volume.received.assign(static_cast<std::size_t>(ep_size), 0);
  for (std::int32_t src = 0; src < ep_size; ++src) {
    for (std::int32_t dst = 0; dst < ep_size; ++dst) {
      const std::int64_t copies = volume.link_copies(src, dst);
      if (src == dst) {
        volume.local_copies += copies;
        continue;
      }
      at(volume.sent, src) += copies;
      at(volume.received, dst) += copies;
      const bool is_intra = cluster.node_of(RankId{src}) == cluster.node_of(RankId{dst});
      (is_intra ? volume.intra_node_copies : volume.inter_node_copies) += copies;
    }
  }
}

VolumeBytes bytes_of(const Volume& volume, std::int64_t hidden, std::int64_t element_bytes,
                     std::int64_t scale_bytes) {
  // The sum of the three counts fits, so that each of them and any sum of them does.
  std::int64_t copy_bytes = 0, total = 0;
  C2R_REQUIRE(!__builtin_mul_overflow(hidden, element_bytes, &copy_bytes) &&
                  !__builtin_add_overflow(copy_bytes, scale_bytes, &copy_bytes) &&
                  !__builtin_mul_overflow(copy_bytes, volume.total_copies(), &total),
              kInvalidArgument, "{} copies of {} values of {} bytes are more than 2^63 bytes",
              volume.total_copies(), hidden, element_bytes);
  return {.denominator = volume.denominator,
          .intra_node_bytes = volume.intra_node_copies * copy_bytes,
          .inter_node_bytes = volume.inter_node_copies * copy_bytes,
          .local_bytes = volume.local_copies * copy_bytes};
}

}  // namespace

double Volume::per_token(std::int64_t count) const {
  if (num_tokens == 0) return 0;
  return static_cast<double>(count) / static_cast<double>(denominator * num_tokens);
}

Volume volume_of(const Reach& reach, const TrafficModel& traffic) {
  check_reach(reach, traffic.cluster);
  const std::int64_t ep_size = traffic.cluster.ep_size();
  const CopyMode mode = traffic.copy_mode;
  const bool needs_tokens_on = mode == CopyMode::kPerRank || mode == CopyMode::kPerNode;
  Volume volume{.is_exact = reach.is_exact || !needs_tokens_on,
                .denominator = reach.denominator,
                .link_copies = {ep_size, ep_size},
                .choices = rank_choices(reach)};
  for (std::int64_t home = 0; home < ep_size; ++home) {
    volume.num_tokens += at(reach.num_tokens, home);
    add_home(reach, traffic, home, volume.link_copies);
  }
  volume.num_tokens /= reach.denominator;
  sum_links(traffic.cluster, volume);
  volume.copies_to_experts = mode == CopyMode::kPerNode
                                 ? volume.local_copies + volume.intra_node_copies
                                 : volume.total_copies();
  return volume;
}

double jain_index(std::span<const std::int64_t> loads) {
  double sum = 0, squares = 0;
  for (const std::int64_t load : loads) {
    sum += static_cast<double>(load);
    squares += static_cast<double>(load) * static_cast<double>(load);
  }
  return squares > 0 ? sum * sum / (static_cast<double>(loads.size()) * squares) : 1;
}

CopyFormat with_fp8_dispatch(CopyFormat format) {
  constexpr std::int64_t kValuesOfAScale = 128, kScaleBytes = 4;
  format.dispatch_element_bytes = 1;
  format.dispatch_scale_bytes =
      (format.hidden + kValuesOfAScale - 1) / kValuesOfAScale * kScaleBytes;
  return format;
}

void check_copy_format(const CopyFormat& format) {
  C2R_REQUIRE(
      format.hidden >= 1 && format.dispatch_element_bytes >= 1 && format.combine_element_bytes >= 1,
      kInvalidArgument,
      "a copy of {} values of {} bytes in dispatch and {} in combine: each must be at least "
      "1",
      format.hidden, format.dispatch_element_bytes, format.combine_element_bytes);
  C2R_REQUIRE(format.dispatch_scale_bytes >= 0, kInvalidArgument,
              "a copy has {} bytes of scales, but must have at least 0",
              format.dispatch_scale_bytes);
}

VolumeBytes dispatch_bytes(const Volume& volume, const CopyFormat& format) {
  check_copy_format(format);
  return bytes_of(volume, format.hidden, format.dispatch_element_bytes,
                  format.dispatch_scale_bytes);
}

VolumeBytes combine_bytes(const Volume& volume, const CopyFormat& format) {
  check_copy_format(format);
  return bytes_of(volume, format.hidden, format.combine_element_bytes, 0);
}

}  // namespace c2r
