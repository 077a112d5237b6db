#include "c2r/plan/engines/export.h"

#include <fmt/format.h>

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/plan/engines/write_placements_internal.h"

namespace c2r {
namespace {

// The slots of a layer beyond one for each expert.
std::int64_t num_redundant(const Plan& plan) {
  return std::ssize(plan.layers[0].placement.slots.all()) - plan.num_experts;
}

std::string sglang_usage(const Plan& plan, std::string_view path) {
  return fmt::format(
      "--ep-size {} --ep-num-redundant-experts {} --init-expert-location {} "
      "--ep-dispatch-algorithm static",
      plan.cluster.ep_size(), num_redundant(plan), path);
}

std::string tensorrt_llm_usage(const Plan&, std::string_view path) {
  return fmt::format("moe_config: {{backend: WIDEEP, load_balancer: {}}}", path);
}

std::string vllm_usage(const Plan& plan, std::string_view option, std::string_view path) {
  return fmt::format(
      "--enable-expert-parallel --enable-eplb --eplb-config.num_redundant_experts {} "
      "--eplb-config.{} {}",
      num_redundant(plan), option, path);
}

std::string vllm_41141_usage(const Plan& plan, std::string_view path) {
  return vllm_usage(plan, "initial_mapping_path", path) +
         " --eplb-config.disable_online_rebalancing true";
}

std::string vllm_49572_usage(const Plan& plan, std::string_view path) {
  return vllm_usage(plan, "initial_expert_map_path", path);
}

std::string vllm_ascend_usage(const Plan&, std::string_view path) {
  return fmt::format(
      "--enable-expert-parallel --additional-config '{{\"eplb_config\": {{\"expert_map_path\": "
      "\"{}\"}}}}'",
      path);
}

std::string omni_infer_usage(const Plan&, std::string_view path) {
  return fmt::format("pattern_path: {}", path);
}

std::string eplb_usage(const Plan& plan, std::string_view path) {
  return fmt::format("{} in place of the results of eplb.rebalance_experts with {} replicas", path,
                     std::ssize(plan.layers[0].placement.slots.all()));
}

std::string permutation_usage(const Plan&, std::string_view path) {
  return fmt::format("router rows, biases and experts of a checkpoint permuted as {} says", path);
}

constexpr ExportTarget kTargets[] = {
    {"sglang", ".json", sglang_usage, engine_files::write_sglang, import_sglang},
    {"tensorrt-llm", ".yaml", tensorrt_llm_usage, engine_files::write_tensorrt_llm,
     import_tensorrt_llm},
    {"vllm-41141", ".jsonl", vllm_41141_usage, engine_files::write_vllm_41141, import_vllm_41141},
    {"vllm-49572", ".json", vllm_49572_usage, engine_files::write_vllm_49572, import_vllm_49572},
    {"vllm-ascend", ".json", vllm_ascend_usage, engine_files::write_vllm_ascend,
     import_vllm_ascend},
    {"omni-infer", ".npy", omni_infer_usage, engine_files::write_omni_infer, import_omni_infer,
     /*keeps_slot_order=*/false},
    {"eplb", ".json", eplb_usage, engine_files::write_eplb, import_eplb},
    {"permutation", ".json", permutation_usage, engine_files::write_permutation,
     import_permutation},
};

// How engines send copies, by backend; the first row of a target is its default. Of others (pplx,
// mori, mooncake, flashinfer_all2allv) we do not know it.
struct Backend {
  std::string_view target, name;
  CopyMode mode;
};

constexpr Backend kBackends[] = {
    {"sglang", "none", CopyMode::kAllGather},
    {"sglang", "deepep", CopyMode::kPerNode},  // of --deepep-mode normal, see transport_warning()
    {"tensorrt-llm", "alltoall", CopyMode::kPerRank},
    {"tensorrt-llm", "allgather", CopyMode::kAllGather},
    {"vllm-41141", "allgather_reducescatter", CopyMode::kAllGather},
    {"vllm-41141", "deepep_high_throughput", CopyMode::kPerNode},
    {"vllm-41141", "deepep_low_latency", CopyMode::kPerExpert},
    {"vllm-49572", "allgather_reducescatter", CopyMode::kAllGather},
    {"vllm-49572", "deepep_high_throughput", CopyMode::kPerNode},
    {"vllm-49572", "deepep_low_latency", CopyMode::kPerExpert},
    {"permutation", "allgather", CopyMode::kAllGather},  // Megatron's names
    {"permutation", "alltoall", CopyMode::kPerExpert},
    {"permutation", "flex", CopyMode::kPerNode},
};

// How engines choose among replicas. TensorRT-LLM deals an expert's tokens to its replicas in turn,
// vLLM by a hash of the token's position: kRandom needs as many copies in expectation.
struct EngineRule {
  std::string_view target;
  ReplicaRule rule;
};

constexpr EngineRule kEngineRules[] = {
    {"sglang", ReplicaRule::kLocalFirst},  // of --ep-dispatch-algorithm static, see kCautions
    {"tensorrt-llm", ReplicaRule::kRandom},
    {"vllm-41141", ReplicaRule::kRandom},
    {"vllm-49572", ReplicaRule::kRandom},
};

// What the user must know before trusting an engine with the file, whatever its backend.
struct Caution {
  std::string_view target, text;
};

constexpr Caution kCautions[] = {
    {"sglang",
     "without --ep-dispatch-algorithm, some versions of SGLang skip the map and answer wrongly"},
    {"sglang", "with --enable-eplb, SGLang replaces the placement while it runs"},
    {"vllm-41141", "vLLM reads this file only with its pull request 41141 applied"},
    {"vllm-49572", "vLLM reads this file only with its pull request 49572 applied"},
    {"vllm-49572",
     "vLLM's balancer replaces the placement every --eplb-config.step_interval steps, 3000 by "
     "default: give it more than you run"},
    {"vllm-ascend", "vllm-ascend reads this file in model runner v1 only"},
    {"vllm-ascend", "with DYNAMIC_EPLB=true, vllm-ascend replaces the placement while it runs"},
    {"omni-infer", "the file says which rank holds an expert, not in which slot"},
    {"permutation",
     "permute group-limited models (DeepSeek) only within expert groups or groups as units, or "
     "their router chooses other experts"},
};

// For a backend of which we do not know how it sends.
std::string unknown_backend(const ExportTarget& target, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Backend& backend : kBackends) {
    if (backend.target == target.name) names.push_back(backend.name);
  }
  const std::string known =
      names.empty() ? "" : fmt::format("; it knows {}", fmt::join(names, ", "));
  return fmt::format(
      "c2r does not know how {} sends copies with backend '{}', and so whether placement saves "
      "any{}",
      target.name, shown(name), known);
}

std::optional<std::string> transport_warning(const ExportTarget& target,
                                             const ExportOptions& options) {
  const auto mode = copy_mode_of_backend(target, options.backend);
  if (!mode && options.backend.empty()) return std::nullopt;
  if (!mode) return unknown_backend(target, options.backend);
  const std::string backend =
      options.backend.empty() ? "the default backend" : fmt::format("backend {}", options.backend);
  if (*mode == CopyMode::kAllGather) {
    return fmt::format(
        "with {}, {} sends every token to every rank: placement changes the balance of load, but "
        "not a byte of traffic",
        backend, target.name);
  }
  const bool is_mode_of_deepep = target.name == "sglang" && options.backend == "deepep";
  if (*mode == CopyMode::kPerExpert || is_mode_of_deepep) {
    return fmt::format(
        "with {}{}, {} sends one copy for every chosen expert: placement changes only which of "
        "them stay on their rank or node",
        backend, is_mode_of_deepep ? " in --deepep-mode low_latency, or auto while it decodes" : "",
        target.name);
  }
  return std::nullopt;
}

std::optional<std::string> constraint_warning(const ExportTarget& target, const Plan& plan) {
  if (!plan.top_t) return std::nullopt;
  return fmt::format(
      "the plan constrains routing to {} collaborators of an expert, which {} cannot be told: it "
      "routes without the constraint",
      *plan.top_t, target.name);
}

std::optional<std::string> replica_warning(const ExportTarget& target, const Plan& plan) {
  const auto rule = replica_rule_of(target);
  const bool replicates = std::ranges::any_of(plan.layers, has_replicas, &PlanLayer::placement);
  if (!rule || !replicates || plan.predictions.empty()) return std::nullopt;
  const ReplicaRule predicted = plan.predictions.back().replica_rule;
  if (predicted == *rule) return std::nullopt;
  return fmt::format(
      "the plan's predictions assume the replica rule {}, but {} chooses as {} does: see what that "
      "gives with c2r simulate --replica-rule {}",
      name_of(predicted), target.name, name_of(*rule), name_of(*rule));
}

std::vector<ExpertId> sorted(std::span<const ExpertId> experts) {
  std::vector<ExpertId> result(experts.begin(), experts.end());
  std::ranges::sort(result);
  return result;
}

void check_same(const PlanLayer& layer, const Placement& found, bool keeps_slot_order,
                std::string_view place) {
  const Placement& expected = layer.placement;
  C2R_REQUIRE(found.slots_per_rank() == expected.slots_per_rank(), kInvalidFile,
              "{}: layer {} has {} slots a rank, but {} in the plan", place, layer.layer_index,
              found.slots_per_rank(), expected.slots_per_rank());
  for (std::int64_t r = 0; r < expected.slots.rows(); ++r) {
    const bool is_same = keeps_slot_order
                             ? std::ranges::equal(found.slots.row(r), expected.slots.row(r))
                             : sorted(found.slots.row(r)) == sorted(expected.slots.row(r));
    C2R_REQUIRE(is_same, kInvalidFile, "{}: layer {}: rank {} holds other experts than in the plan",
                place, layer.layer_index, r);
  }
}

}  // namespace

std::span<const ExportTarget> export_targets() {
  return kTargets;
}

const ExportTarget& find_export_target(std::string_view name) {
  const auto found = std::ranges::find(kTargets, name, &ExportTarget::name);
  if (found != std::end(kTargets)) return *found;
  std::vector<std::string_view> names;
  for (const ExportTarget& target : kTargets) names.push_back(target.name);
  C2R_THROW(kInvalidArgument, "an export target is {}; not '{}'", fmt::join(names, ", "),
            shown(name));
}

std::optional<CopyMode> copy_mode_of_backend(const ExportTarget& target, std::string_view backend) {
  const auto found = std::ranges::find_if(kBackends, [&](const Backend& b) {
    return b.target == target.name && (backend.empty() || b.name == backend);
  });
  if (found == std::end(kBackends)) return std::nullopt;
  return found->mode;
}

std::optional<ReplicaRule> replica_rule_of(const ExportTarget& target) {
  const auto* const found = std::ranges::find(kEngineRules, target.name, &EngineRule::target);
  if (found == std::end(kEngineRules)) return std::nullopt;
  return found->rule;
}

MapShape map_shape(const Plan& plan) {
  MapShape shape{.num_experts = plan.num_experts, .ep_size = plan.cluster.ep_size()};
  for (const PlanLayer& layer : plan.layers) shape.layer_indices.push_back(layer.layer_index);
  return shape;
}

Export export_plan(const ExportTarget& target, const Plan& plan, const ExportOptions& options) {
  check_plan(plan);
  Export result{.bytes = target.write(plan, options)};
  validate_export(target, result.bytes, plan, fmt::format("the {} file", target.name));
  for (const Caution& caution : kCautions) {
    if (caution.target == target.name) result.warnings.emplace_back(caution.text);
  }
  if (target.name == "sglang" && !options.num_hidden_layers) {
    result.warnings.push_back(fmt::format(
        "the number of hidden layers was not given: {} rows were written, as if layer {} were the "
        "model's last",
        plan.layers.back().layer_index + 1, plan.layers.back().layer_index));
  }
  if (auto warning = transport_warning(target, options)) result.warnings.push_back(*warning);
  if (auto warning = constraint_warning(target, plan)) result.warnings.push_back(*warning);
  if (auto warning = replica_warning(target, plan)) result.warnings.push_back(*warning);
  return result;
}

void validate_export(const ExportTarget& target, std::string_view bytes, const Plan& plan,
                     std::string_view place) {
  const std::vector<Placement> found = target.read(bytes, map_shape(plan), place);
  C2R_REQUIRE(std::ssize(found) == plan.num_layers(), kInvalidFile,
              "{}: it has {} MoE layers, but the plan has {}", place, found.size(),
              plan.num_layers());
  for (std::size_t l = 0; l < found.size(); ++l) {
    check_same(plan.layers[l], found[l], target.keeps_slot_order, place);
  }
}

}  // namespace c2r
