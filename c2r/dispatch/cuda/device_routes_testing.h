// Problems for routes on a device, fake or real, and their comparison with the row plans of the
// host.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "c2r/dispatch/cuda/device_routes.h"
#include "c2r/dispatch/rows/make_row_plans_internal.h"
#include "c2r/dispatch/testing_internal.h"

namespace c2r::testing {

/// As random_problem(), but without replicas; some have more tokens than a tile.
inline ExchangeProblem random_route_problem(const DispatchOptions& options, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  const std::int32_t ep_size = options.traffic.cluster.ep_size();
  const auto num_experts = ep_size * std::int32_t(1 + uniform_below(4, rng));
  const auto top_k = std::int32_t(1 + uniform_below(std::uint64_t(std::min(6, num_experts)), rng));
  ExchangeProblem problem{
      .placement = random_placement(num_experts, ep_size, 0, rng), .options = options, .hidden = 1};
  for (std::int32_t r = 0; r < ep_size; ++r) {
    const auto num_tokens = std::int64_t(uniform_below(4, rng) == 0 ? 0 : uniform_below(150, rng));
    problem.batches.push_back(random_batch(num_tokens, top_k, 1, rng, [&](auto& random) {
      return random_choices(num_experts, top_k, random);
    }));
  }
  number_tokens(problem.batches);
  return problem;
}

/// A device array that is copied to the host.
template <class T>
std::vector<T> download_array(DeviceStream& stream, const DeviceBuffer& from, std::int64_t size) {
  std::vector<T> to(static_cast<std::size_t>(size));
  const std::size_t num_bytes = to.size() * sizeof(T);
  const PinnedBuffer pinned(stream, std::int64_t(num_bytes));
  stream.copy_to_pinned(from.bytes().first(num_bytes), pinned.data());
  stream.record()->synchronize();
  if (num_bytes > 0) std::memcpy(to.data(), pinned.data(), num_bytes);
  return to;
}

/// The arrays of a row plan that are for this rank's own tokens.
struct HostRoutes {
  std::vector<std::int64_t> send_offsets, send_choice_offsets, return_offsets;
  std::vector<std::int32_t> send_item, send_choice, return_row;
  std::vector<float> return_weight;

  bool operator==(const HostRoutes&) const = default;
};

/// The entries of each rank that are below `limit`, which come first.
inline void keep_own(const std::vector<std::int64_t>& offsets,
                     const std::vector<std::int32_t>& values, std::int64_t limit,
                     std::vector<std::int64_t>& own_offsets, std::vector<std::int32_t>& own) {
  own_offsets.assign(1, 0);
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
    for (auto i = offsets[r]; i < offsets[r + 1]; ++i) {
      if (values[std::size_t(i)] < limit) own.push_back(values[std::size_t(i)]);
    }
    own_offsets.push_back(std::ssize(own));
  }
}

inline HostRoutes routes_of_plan(const RowPlan& plan) {
  HostRoutes routes;
  keep_own(plan.send_offsets, plan.send_item, plan.num_tokens, routes.send_offsets,
           routes.send_item);
  keep_own(plan.send_choice_offsets, plan.send_choice, plan.num_tokens * plan.top_k,
           routes.send_choice_offsets, routes.send_choice);
  routes.return_offsets.assign(plan.return_offsets.begin(),
                               plan.return_offsets.begin() + plan.num_tokens + 1);
  const auto& from = plan.returns_choices ? plan.send_choice_offsets : plan.send_offsets;
  const auto& to = plan.returns_choices ? routes.send_choice_offsets : routes.send_offsets;
  for (std::int64_t i = 0; i < routes.return_offsets.back(); ++i) {
    // The rank's rows for relayed copies come behind those for tokens.
    const std::int32_t row = plan.return_row[std::size_t(i)];
    const auto rank = std::size_t(std::ranges::upper_bound(from, row) - from.begin() - 1);
    routes.return_row.push_back(std::int32_t(row - from[rank] + to[rank]));
  }
  routes.return_weight = plan.return_weight;
  return routes;
}

/// Makes the routes of this rank's tokens on a device.
inline HostRoutes make_routes_on_device(const ExchangeProblem& problem, RankId rank,
                                        DeviceStream& stream, RouteLauncher& launcher) {
  const TokenBatch& batch = problem.batches[index(rank)];
  const auto num_choices = std::ssize(batch.topk_idx.all());
  const DeviceBuffer idx(stream, num_choices * 4), weights(stream, num_choices * 4);
  stream.upload(std::as_bytes(batch.topk_idx.all()), idx.data());
  stream.upload(std::as_bytes(batch.topk_weights.all()), weights.data());
  DeviceRouteMaker maker(problem.placement, problem.options, rank, stream, launcher);
  const DeviceRoutes on_device = maker.make(
      {reinterpret_cast<const ExpertId*>(idx.data()), batch.topk_idx.rows(), batch.topk_idx.cols()},
      {reinterpret_cast<const float*>(weights.data()), batch.topk_idx.rows(),
       batch.topk_idx.cols()});
  return {.send_offsets = on_device.send_offsets,
          .send_choice_offsets = on_device.send_choice_offsets,
          .return_offsets = download_array<std::int64_t>(stream, on_device.return_offsets,
                                                         batch.topk_idx.rows() + 1),
          .send_item = download_array<std::int32_t>(stream, on_device.send_item,
                                                    on_device.send_offsets.back()),
          .send_choice = download_array<std::int32_t>(stream, on_device.send_choice,
                                                      on_device.send_choice_offsets.back()),
          .return_row =
              download_array<std::int32_t>(stream, on_device.return_row, on_device.num_returns),
          .return_weight = download_array<float>(
              stream, on_device.return_weight,
              on_device.return_weight.bytes().empty() ? 0 : on_device.num_returns)};
}

/// The same from the row plan of the host. Collective.
inline HostRoutes make_routes_on_host(const ExchangeProblem& problem, Transport& transport) {
  const TokenBatch& batch = problem.batches[index(transport.rank())];
  RoutingTable table(transport, problem.placement, problem.options);
  return routes_of_plan(make_row_plans(transport, table, batch.topk_idx, batch.topk_weights,
                                       batch.first_token, 1, "layer 3")[0]);
}

}  // namespace c2r::testing
