// The routed experts on ranks: gives each layer to its dispatcher, and the rows of each slot to its
// expert.
#include "c2r/model/expert_parallel.h"

#include <fmt/core.h>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// The rows of each slot that has any.
std::vector<ExpertRows> groups_of(std::span<const ExpertWeights> experts,
                                  std::span<const ExpertId> slots,
                                  std::span<const std::int64_t> offsets,
                                  MatrixView<const float> rows, MatrixView<float> out) {
  std::vector<ExpertRows> groups;
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    const auto begin = offsets[slot], end = offsets[slot + 1];
    if (begin == end) continue;
    groups.push_back({&experts[index(slots[slot])], rows.rows(begin, end), out.rows(begin, end)});
  }
  return groups;
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

void ExpertParallelExperts::run(const RoutedBatch& batch) {
  Layer& layer = layers_[static_cast<std::size_t>(batch.moe_layer)];
  const PipelineWork work{
      .experts =
          [&](auto offsets, auto rows, auto out) {
            mlps_.run(groups_of(batch.experts, layer.slots, offsets, rows, out));
          },
      .local_work = [&] { mlps_.run(batch.shared_experts); }};
  times_ +=
      pipeline_.run(*layer.dispatcher, batch.x, batch.routing.topk_idx, batch.routing.topk_weights,
                    layer.num_tokens, layer.label, work, batch.sum);
  layer.num_tokens += batch.x.rows();
}

}  // namespace c2r
