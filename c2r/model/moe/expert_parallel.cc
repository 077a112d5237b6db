// The routed experts on ranks: gives each layer to its dispatcher, and the rows of each slot to its
// expert.
#include "c2r/model/moe/expert_parallel.h"

#include <fmt/core.h>

#include "c2r/core/error.h"
#include "c2r/experts/expert_compute.h"

namespace c2r {
namespace {

// The expert of each slot, null where a slot is empty.
std::vector<const ExpertWeights*> experts_of(std::span<const ExpertId> slots,
                                             std::span<const ExpertWeights> experts) {
  std::vector<const ExpertWeights*> of_slots;
  for (const ExpertId e : slots) of_slots.push_back(e == kNoExpert ? nullptr : &experts[index(e)]);
  return of_slots;
}

}  // namespace

ExpertParallelExperts::ExpertParallelExperts(const ModelConfig& config, Arithmetic arithmetic,
                                             ThreadPool& pool, Transport& transport,
                                             const ExpertParallelOptions& options)
    : gemm_(arithmetic, pool), mlps_(gemm_), pipeline_(pool, options.num_chunks.value_or(1)) {
  C2R_REQUIRE(std::ssize(options.placements) == config.num_moe_layers(), kInvalidArgument,
              "there are {} placements, but the model has {} layers with experts",
              options.placements.size(), config.num_moe_layers());
  for (std::size_t layer = 0; layer < options.placements.size(); ++layer) {
    const Placement& placement = options.placements[layer];
    C2R_REQUIRE(placement.num_experts == config.num_experts, kInvalidArgument,
                "a placement is for {} experts, but the model has {}", placement.num_experts,
                config.num_experts);
    const auto slots = placement.slots.row(static_cast<std::int64_t>(index(transport.rank())));
    layers_.push_back(
        {.label = fmt::format("layer {}", config.moe_layers[layer]),
         .slots = {slots.begin(), slots.end()},
         .dispatcher =
             layer == 0 ? std::make_unique<Dispatcher>(transport, pool, placement, options.dispatch)
                        : std::make_unique<Dispatcher>(*layers_[0].dispatcher, placement)});
  }
}

std::span<const std::int64_t> ExpertParallelExperts::sent_row_bytes() const {
  if (layers_.empty()) return {};
  return layers_.front().dispatcher->sent_row_bytes();
}

void ExpertParallelExperts::run(const RoutedBatch& batch) {
  Layer& layer = layers_[static_cast<std::size_t>(batch.moe_layer)];
  const auto slots = experts_of(layer.slots, batch.experts);
  CpuExperts experts(mlps_, slots);
  const PipelineWork work{.experts = [&](auto offsets, const auto& rows,
                                         auto out) { experts.forward(offsets, rows, out); },
                          .local_work = [&] { mlps_.run(batch.shared_experts); }};
  times_ +=
      pipeline_.run(*layer.dispatcher, batch.x, batch.routing.topk_idx, batch.routing.topk_weights,
                    layer.num_tokens, layer.label, work, batch.sum);
  layer.num_tokens += batch.x.rows();
}

}  // namespace c2r
