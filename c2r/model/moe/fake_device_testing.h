// The fake device on which a test runs one rank's part of a whole layer.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "c2r/dispatch/cuda/host_row_launcher_testing.h"
#include "c2r/experts/cuda/host_experts_testing.h"
#include "c2r/model/moe/device_layer_testing.h"
#include "c2r/routing/cuda/host_select_launcher_testing.h"
#include "c2r/transport/device/fake_rank_testing.h"

namespace c2r::testing {

/// Reads what is sent when an exchange starts. Other transports read it when the peer is ready,
/// when a later wait may have made up for one that is missing.
class EarlyReadingTransport final : public Transport {
 public:
  /// @param under must outlive this object
  explicit EarlyReadingTransport(Transport& under) : under_(under) {}

  RankId rank() const override { return under_.rank(); }
  std::int32_t ep_size() const override { return under_.ep_size(); }
  const Traffic& sent() const override { return under_.sent(); }
  std::unique_ptr<Exchange> start(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                  std::string label) override {
    auto exchange = std::make_unique<OfCopies>();
    std::vector<Outgoing> copies;
    for (const Outgoing& part : send) {
      const auto& copy = exchange->sent.emplace_back(part.bytes.begin(), part.bytes.end());
      copies.push_back({part.dst, copy});
    }
    exchange->under = under_.start(copies, recv, std::move(label));
    return exchange;
  }

 private:
  struct OfCopies final : Exchange {
    bool done() override { return under->done(); }
    void wait() override { under->wait(); }

    std::deque<std::vector<std::byte>> sent;
    std::unique_ptr<Exchange> under;  // ends first
  };

  Transport& under_;
};

struct LayerRun {
  std::int32_t num_chunks = 1;
  FakeRankOptions device;
};

/// @returns what `body` returns for the parts of a device of its own
/// @param num_waits if not null, is set to the number of waits
template <class Body>
auto on_fake_device(Transport& transport, const LayerRun& how, int* num_waits, const Body& body) {
  EarlyReadingTransport early_reading(transport);
  FakeRank device(early_reading, how.device);
  HostRowLauncher row_launcher;
  HostExpertLauncher expert_launcher;
  HostSelectLauncher select_launcher;
  HostProducts products;
  auto result = body(DeviceParts{device.compute(), device.network(), row_launcher, expert_launcher,
                                 select_launcher, products});
  const int waited = device.finish();
  if (num_waits != nullptr) *num_waits = waited;
  return result;
}

/// A problem of two ranks with 12 tokens each, whose choices are on both.
inline DeviceLayerProblem problem_of_waits() {
  DeviceLayerProblem problem({.traffic = {.cluster = {.ranks_per_node = 2}}}, 6);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    TokenBatch& batch = problem.exchange.batches[rank];
    batch.x = random_matrix(12, problem.exchange.hidden, problem.rng);
    problem.logits[rank] = random_matrix(12, problem.exchange.placement.num_experts, problem.rng);
    Routing routing = route_reference(problem.policy, problem.logits[rank]);
    batch.topk_idx = std::move(routing.topk_idx);
    batch.topk_weights = std::move(routing.topk_weights);
  }
  number_tokens(problem.exchange.batches);
  return problem;
}

}  // namespace c2r::testing
