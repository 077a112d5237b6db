// Adds up what ranks have sent, rank by rank, and finds what their plan says of it.
#include "c2r/engine/ranks/run_traffic.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "c2r/core/error.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/transport/collectives.h"

namespace c2r {

std::int64_t total_bytes(const Matrix<std::int64_t>& bytes) {
  return std::accumulate(bytes.all().begin(), bytes.all().end(), std::int64_t{0});
}

double RunTraffic::tokens_per_s() const {
  return elapsed_s > 0 ? static_cast<double>(num_tokens) / elapsed_s : 0;
}

double RunTraffic::per_token(std::int64_t bytes) const {
  const auto num_visits = static_cast<double>(num_tokens) * static_cast<double>(num_layers);
  return num_visits > 0 ? static_cast<double>(bytes) / num_visits : 0;
}

LinkBytes RunTraffic::row_bytes_per_token() const {
  std::int64_t intra_node = 0, inter_node = 0;
  for (std::int32_t src = 0; src < cluster.ep_size(); ++src) {
    for (std::int32_t dst = 0; dst < cluster.ep_size(); ++dst) {
      const bool is_in_node = cluster.node_of(RankId{src}) == cluster.node_of(RankId{dst});
      (is_in_node ? intra_node : inter_node) += row_bytes(src, dst);
    }
  }
  return {.intra_node = per_token(intra_node), .inter_node = per_token(inter_node)};
}

double RunTraffic::other_bytes_per_token() const {
  return per_token(total_bytes(sent_bytes) - total_bytes(row_bytes));
}

RunMeter::RunMeter(Engine& engine, const Cluster& cluster)
    : engine_(engine), cluster_(cluster), before_(counts()), start_(Clock::now()) {
  C2R_ASSERT(engine.transport()->ep_size() == cluster.ep_size());
}

// The tokens, then the bytes of rows to each rank, then all bytes to each rank.
std::vector<std::int64_t> RunMeter::counts() const {
  std::vector<std::int64_t> counts{engine_.num_tokens()};
  const auto rows = engine_.sent_row_bytes();
  counts.insert(counts.end(), rows.begin(), rows.end());
  counts.resize(1 + static_cast<std::size_t>(cluster_.ep_size()));  // a model without such layers
  const std::vector<std::int64_t>& sent = engine_.transport()->sent().num_bytes;
  counts.insert(counts.end(), sent.begin(), sent.end());
  return counts;
}

RunTraffic RunMeter::finish() {
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - start_).count();
  std::vector<std::int64_t> mine = counts();
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i] -= before_[i];
  const auto all = gather<std::int64_t>(*engine_.transport(), mine, "traffic of the ranks");
  if (all.empty()) return {};
  const std::int64_t ep_size = cluster_.ep_size();
  RunTraffic traffic{.cluster = cluster_,
                     .num_layers = engine_.config().num_moe_layers(),
                     .elapsed_s = elapsed_s,
                     .row_bytes = {ep_size, ep_size},
                     .sent_bytes = {ep_size, ep_size}};
  for (std::int64_t src = 0; src < ep_size; ++src) {
    const std::span<const std::int64_t> of_rank = all[static_cast<std::size_t>(src)];
    C2R_REQUIRE(std::ssize(of_rank) == std::ssize(mine), kTransport,
                "rank {} sent {} counts of its traffic, but {} were expected", src, of_rank.size(),
                mine.size());
    traffic.num_tokens += of_rank.front();
    const auto row_counts = of_rank.subspan(1, static_cast<std::size_t>(ep_size));
    std::ranges::copy(row_counts, traffic.row_bytes.row(src).begin());
    std::ranges::copy(of_rank.last(row_counts.size()), traffic.sent_bytes.row(src).begin());
  }
  return traffic;
}

std::optional<PredictedTraffic> predicted_traffic(const Plan& plan, const DispatchOptions& how,
                                                  std::int64_t hidden) {
  if (plan.predictions.empty()) return std::nullopt;
  const Prediction& of_plan = plan.predictions.back();
  if (!of_plan.has_copies() || of_plan.copy_mode != how.traffic.copy_mode ||
      of_plan.replica_rule != how.traffic.replica_rule) {
    return std::nullopt;
  }
  const double copy_bytes = 2.0 * static_cast<double>(hidden * element_bytes(how.row_type));
  const double inter_node = mean_over_layers(of_plan.inter_node_copies_per_token);
  const double intra_node = mean_over_layers(of_plan.wire_copies_per_token) - inter_node;
  return PredictedTraffic{.row_bytes_per_token = {.intra_node = copy_bytes * intra_node,
                                                  .inter_node = copy_bytes * inter_node},
                          .trace = of_plan.trace,
                          .homes = of_plan.homes};
}

}  // namespace c2r
