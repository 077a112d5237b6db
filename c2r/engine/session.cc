// Opens a model for a run; on several ranks, each step ends with all ranks knowing of its errors.
#include "c2r/engine/session.h"

#include "c2r/core/error.h"
#include "c2r/engine/memory.h"
#include "c2r/engine/ranks/agreement.h"
#include "c2r/io/memory.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

EngineOptions engine_options(const SessionOptions& options, int default_threads) {
  return {.arithmetic = options.arithmetic,
          .num_threads = options.num_threads.value_or(default_threads),
          .max_pass_tokens = options.max_pass_tokens};
}

void warn_of_files(const SessionOptions& options, const Model& model, const WarningObserver& warn) {
  if (!warn) return;
  if (!model.checkpoint().note().empty()) warn(model.checkpoint().note());
  if (!model.has_replaced_lists()) return;
  warn(fmt::format("the collaborator lists of {} replace those of the model's config.json",
                   options.plan.string()));
}

}  // namespace

ExpertParallelOptions expert_parallel_options(const SessionOptions& options, const Model& model,
                                              std::int32_t ep_size) {
  const ModelConfig& config = model.config();
  const Plan* const plan = model.plan();
  const Cluster cluster =
      plan != nullptr ? plan->cluster : Cluster{.num_nodes = 1, .ranks_per_node = ep_size};
  C2R_REQUIRE(cluster.ep_size() == ep_size, kInvalidArgument,
              "{}: the plan is for {} ranks, but there are {}; start {}, or make a plan for {}",
              options.plan.string(), cluster.ep_size(), ep_size, cluster.ep_size(), ep_size);
  const TraceHeader header{
      .num_experts = config.num_experts, .top_k = config.top_k, .layer_indices = config.moe_layers};
  const ElementType row_type =
      options.arithmetic == Arithmetic::kBf16 ? ElementType::kBf16 : ElementType::kF32;
  return {
      .placements = plan != nullptr ? placements_of(*plan) : contiguous_placements(header, cluster),
      .dispatch = {.traffic = {.cluster = cluster,
                               .copy_mode = options.copy_mode.value_or(default_copy_mode(cluster))},
                   .row_type = options.row_type.value_or(row_type)},
      .num_chunks = options.num_chunks};
}

Session::Session(const SessionOptions& options, const WarningObserver& warn) {
  model_.emplace(options.model, options.plan);
  engine_.emplace(*model_, engine_options(options, default_num_threads()));
  warn_of_files(options, *model_, warn);
}

Session::Session(const SessionOptions& options, Transport& transport, const WarningObserver& warn) {
  const auto ranks = ranks_of_this_machine(transport);
  const int default_threads = num_threads_of_rank(transport);
  RunFingerprint fingerprint{};
  const auto open = [&] {
    model_.emplace(options.model, options.plan);
    expert_parallel_ = expert_parallel_options(options, *model_, transport.ep_size());
    const auto available = options.available_bytes ? options.available_bytes : available_bytes();
    if (available) check_memory(*model_, expert_parallel_.placements, ranks, *available);
    engine_.emplace(*model_, engine_options(options, default_threads), transport, expert_parallel_);
    const Plan* const plan = model_->plan();
    if (plan != nullptr && plan->homes && plan->homes->signature) {
      engine_->follow_homes(*plan->homes->signature);
    }
    fingerprint = fingerprint_of_run(*model_, options.arithmetic, expert_parallel_);
  };
  agree_on_errors(transport, "start of the run", open);
  check_same_run(transport, fingerprint);
  if (!warn || !is_first_rank()) return;
  if (model_->plan() == nullptr) warn("there is no plan, so experts are placed contiguously");
  warn_of_files(options, *model_, warn);
}

}  // namespace c2r
