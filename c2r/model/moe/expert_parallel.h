// The routed experts of a model on several ranks: each computes those in its slots.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/pipeline.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/model/config.h"
#include "c2r/model/moe/routed_experts.h"
#include "c2r/placement/placement.h"
#include "c2r/transport/transport.h"

namespace c2r {

struct ExpertParallelOptions {
  std::vector<Placement> placements;  // [num_moe_layers]
  DispatchOptions dispatch;
  // A batch is cut into so many, one of which travels while another is computed. The same on every
  // rank. None: 1, until set_num_chunks() is called.
  std::optional<std::int32_t> num_chunks;
};

/// Collective: all ranks run the same layers in the same order, with or without tokens. The shared
/// experts are computed while the first chunk travels. In mode per-expert with f32 rows results are
/// the same bits as LocalExperts'; else sums are in another order, or rows rounded: see dispatch.h.
///
/// Touches the weights of this rank's slots and no others.
class ExpertParallelExperts final : public RoutedExperts {
 public:
  /// @param config,pool,transport must outlive this object
  /// @throws Error(kInvalidArgument) if a placement is not for the experts or ranks
  ExpertParallelExperts(const ModelConfig& config, Arithmetic arithmetic, ThreadPool& pool,
                        Transport& transport, const ExpertParallelOptions& options);

  /// @throws as Exchange::wait(); messages begin with "layer N", the model's own index
  void run(const RoutedBatch& batch) override;

  /// Of later batches; the same on every rank. Positive.
  void set_num_chunks(std::int32_t num_chunks) { pipeline_.set_num_chunks(num_chunks); }
  /// What batches have taken since the last call.
  PipelineTimes take_times() { return std::exchange(times_, {}); }
  /// @returns as Dispatcher::sent_row_bytes(), of all layers; empty if there are no layers
  std::span<const std::int64_t> sent_row_bytes() const;

 private:
  struct Layer {
    std::string label;
    std::vector<ExpertId> slots;  // of this rank
    std::unique_ptr<Dispatcher> dispatcher;
    std::int64_t num_tokens = 0;  // so far, of this rank
  };

  GroupedGemm gemm_;
  ExpertMlps mlps_;
  Pipeline pipeline_;
  PipelineTimes times_;
  std::vector<Layer> layers_;  // [num_moe_layers]
};

}  // namespace c2r
