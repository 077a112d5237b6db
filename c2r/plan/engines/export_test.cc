// Tests of exported placements: worked examples of every form, and the warnings.
#include "c2r/plan/engines/export.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/plan/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;
using testing::random_plan;
using testing::small_plan;

// small_plan() without lists, of which each target warns.
Plan unconstrained_plan() {
  Plan plan = small_plan();
  plan.top_t.reset();
  for (PlanLayer& layer : plan.layers) layer.collaborators = {};
  return plan;
}

std::string exported(std::string_view target, const Plan& plan, const ExportOptions& options = {}) {
  return export_plan(find_export_target(target), plan, options).bytes;
}

// MoE layers 1 and 3 on two ranks, 0 3 | 1 2 and 0 1 | 2 3.
TEST(Export, WritesASmallPlanInEveryForm) {
  const Plan plan = small_plan();
  EXPECT_EQ(exported("sglang", plan, {.num_hidden_layers = 5}),
            "{\"physical_to_logical_map\":"
            "[[0,1,2,3],[0,3,1,2],[0,1,2,3],[0,1,2,3],[0,1,2,3]]}\n");
  EXPECT_EQ(exported("tensorrt-llm", plan),
            "num_slots: 4\n"
            "layer_updates_per_iter: 0\n"
            "initial_global_assignments:\n"
            "  1: [0,3,1,2]\n"
            "  3: [0,1,2,3]\n");
  EXPECT_EQ(exported("vllm-41141", plan),
            "{\"record_type\":\"eplb_initial_mapping\",\"version\":1,\"num_redundant_experts\":0,"
            "\"num_slots\":4,\"initial_global_assignments\":"
            "{\"0\":[0,3,1,2],\"1\":[0,1,2,3]}}\n");
  EXPECT_EQ(exported("vllm-49572", plan), "[[0,3,1,2],[0,1,2,3]]\n");
  EXPECT_EQ(exported("vllm-ascend", plan),
            "{\"moe_layer_count\":2,\"layer_list\":["
            "{\"layer_id\":0,\"device_count\":2,\"device_list\":["
            "{\"device_id\":0,\"device_expert\":[0,3]},{\"device_id\":1,\"device_expert\":[1,2]}]},"
            "{\"layer_id\":1,\"device_count\":2,\"device_list\":["
            "{\"device_id\":0,\"device_expert\":[0,1]},{\"device_id\":1,\"device_expert\":[2,3]}]}"
            "]}\n");
  EXPECT_EQ(exported("permutation", plan),
            "{\"num_experts\":4,\"old_of_new\":{\"1\":[0,3,1,2],\"3\":[0,1,2,3]},"
            "\"new_of_old\":{\"1\":[0,2,3,1],\"3\":[0,1,2,3]}}\n");
}

TEST(Export, WritesReplicas) {
  Plan plan = small_plan();
  plan.layers.resize(1);
  plan.predictions.clear();
  plan.layers[0].placement = make_placement(4, {{0, 3, 1}, {1, 2, 0}});
  EXPECT_EQ(exported("eplb", plan),
            "{\"physical_to_logical_map\":[[0,3,1,1,2,0]],"
            "\"logical_to_physical_map\":[[[0,5],[2,3],[4,-1],[1,-1]]],"
            "\"logical_count\":[[2,2,1,1]]}\n");
  EXPECT_NE(exported("vllm-41141", plan).find("\"num_redundant_experts\":2,\"num_slots\":6"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { exported("permutation", plan); }),
            "layer 1 has 6 slots for 4 experts, but a permutation cannot express replicas");
}

TEST(Export, WritesOmniInfersPatternAsNumpyReadsIt) {
  const std::string bytes = exported("omni-infer", small_plan());
  ASSERT_EQ(bytes.size(), 128u + 2 * 2 * 4 * 4);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  EXPECT_EQ(bytes.substr(8, 2), std::string("\x76\x00", 2));  // 118 = 128 - 10
  EXPECT_EQ(bytes.substr(10, 61), "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2, 4), ");
  EXPECT_EQ(bytes[127], '\n');
  std::vector<std::int32_t> values(16);
  std::memcpy(values.data(), bytes.data() + 128, 64);
  EXPECT_EQ(values, (std::vector<std::int32_t>{1, 0, 0, 1, 1, 1, 0, 0,     // rank 0
                                               0, 1, 1, 0, 0, 0, 1, 1}));  // rank 1
}

TEST(Export, ReadsBackWhatItWrote) {
  int num_round_trips = 0;
  for (unsigned seed = 0; seed < 80; ++seed) {
    const Plan plan = random_plan(seed);
    for (const ExportTarget& target : export_targets()) {
      SCOPED_TRACE(fmt::format("seed {} {}", seed, target.file.name));
      const bool has_replicas =
          std::ssize(plan.layers[0].placement.slots.all()) != plan.num_experts;
      if (target.file.name == "permutation" && has_replicas) continue;
      const std::string bytes = export_plan(target, plan, {}).bytes;
      const auto layers = read_placements(target.file, bytes, map_shape(plan), "round trip");
      ASSERT_EQ(layers.size(), plan.layers.size());
      for (std::size_t l = 0; target.file.keeps_slot_order && l < layers.size(); ++l) {
        EXPECT_EQ(layers[l], plan.layers[l]);
      }
      EXPECT_EQ(export_plan(target, plan, {}).bytes, bytes) << "not the same bytes";
      ++num_round_trips;
    }
  }
  EXPECT_GT(num_round_trips, 500);
}

// Layer 1 as EPLB may make it: rank 0 holds expert 3 in its slots 1 and 2.
Plan wasteful_plan() {
  Plan plan = unconstrained_plan();
  const std::vector<std::vector<std::int32_t>> ranks = {{0, 3, -1}, {1, 2, 0}};
  plan.layers[0].placement = placement_of_ranks(4, ranks);
  plan.layers[0].wasted_slots = {{.rank = RankId{0}, .slot = 2, .expert = ExpertId{3}}};
  plan.layers[1].placement = make_placement(4, {{0, 1, 2}, {2, 3, 0}});
  return plan;
}

TEST(Export, WritesWastedSlotsAsTheyWereFound) {
  const Plan plan = wasteful_plan();
  EXPECT_EQ(exported("vllm-49572", plan), "[[0,3,3,1,2,0],[0,1,2,2,3,0]]\n");
  EXPECT_NE(exported("eplb", plan).find("\"logical_count\":[[2,1,1,2],[2,1,2,1]]"),
            std::string::npos)
      << exported("eplb", plan);
  for (const ExportTarget& target : export_targets()) {
    if (target.file.name == "permutation" || !target.file.keeps_slot_order) continue;
    const std::string bytes = exported(target.file.name, plan, {.num_hidden_layers = 4});
    const auto layers = read_placements(target.file, bytes, map_shape(plan), "round trip");
    EXPECT_EQ(layers[0].wasted_slots, plan.layers[0].wasted_slots) << target.file.name;
    EXPECT_EQ(layers[0].placement, plan.layers[0].placement) << target.file.name;
    Plan other = plan;  // in which another expert is there twice
    other.layers[0].wasted_slots[0].expert = ExpertId{0};
    EXPECT_EQ(error_of([&] { validate_export(target, bytes, other, "f"); }),
              "f: layer 1: rank 0 holds other experts than in the plan")
        << target.file.name;
  }
  EXPECT_EQ(export_plan(find_export_target("tensorrt-llm"), plan, {}).warnings[0],
            "1 slots in 1 of 2 layers are wasted: their rank holds the expert in another slot, too "
            "(the first is slot 2 of rank 0 in layer 1); they were written as the plan has them: "
            "c2r import --repair fills them");
  EXPECT_EQ(
      error_of([&] { exported("omni-infer", plan); }),
      "1 slots in 1 of 2 layers are wasted: their rank holds the expert in another slot, too "
      "(the first is slot 2 of rank 0 in layer 1), which omni-infer's file cannot say: import "
      "the placement with --repair, or plan by another method than balance");
}

// Experts 0 and 1 change places in what was written: every validator must notice.
TEST(Export, ValidatorsFindASwappedExpert) {
  Plan plan = small_plan(), swapped = small_plan();
  swapped.layers[1].placement = make_placement(4, {{0, 2}, {1, 3}});
  for (const ExportTarget& target : export_targets()) {
    const std::string bytes = export_plan(target, swapped, {}).bytes;
    EXPECT_EQ(error_of([&] { validate_export(target, bytes, plan, "f"); }),
              "f: layer 3: rank 0 holds other experts than in the plan")
        << target.file.name;
  }
}

TEST(Export, ValidatorsFindATruncatedFile) {
  const Plan plan = small_plan();
  for (const ExportTarget& target : export_targets()) {
    const std::string bytes = export_plan(target, plan, {}).bytes;
    const std::string_view cut = std::string_view(bytes).substr(0, bytes.size() - 3);
    EXPECT_NE(error_of([&] { validate_export(target, cut, plan, "f"); }), "no error")
        << target.file.name;
  }
}

TEST(Export, WarnsWherePlacementMovesNoByte) {
  const auto warnings = [](std::string_view target, std::string backend) {
    std::string all;
    for (const auto& w : export_plan(find_export_target(target), unconstrained_plan(),
                                     {.num_hidden_layers = 4, .backend = std::move(backend)})
                             .warnings) {
      all += w + "\n";
    }
    return all;
  };
  const std::string cautions =
      "vLLM reads this file only with its pull request 49572 applied\n"
      "vLLM's balancer replaces the placement every --eplb-config.step_interval steps, 3000 by "
      "default: give it more than you run\n";
  EXPECT_EQ(warnings("vllm-49572", ""),
            cautions +
                "vLLM sends every token to every rank with the default backend "
                "allgather_reducescatter: placement changes the balance of load, but not a byte of "
                "traffic\n");
  EXPECT_EQ(warnings("vllm-49572", "deepep_low_latency"),
            cautions +
                "vLLM sends one copy for every chosen expert with backend deepep_low_latency: "
                "placement changes only which of them stay on their rank or node\n");
  EXPECT_EQ(warnings("vllm-49572", "deepep_high_throughput"), cautions);
  EXPECT_EQ(warnings("vllm-49572", "pplx"),
            cautions +
                "c2r does not know how vLLM sends copies with backend 'pplx', and so whether "
                "placement saves any; it knows allgather_reducescatter, deepep_high_throughput, "
                "deepep_low_latency, deepep_v2, nixl_ep, mori_high_throughput, mori_low_latency, "
                "flashinfer_nvlink_one_sided, flashinfer_nvlink_two_sided, nccl_ep, uccl\n");
  EXPECT_NE(warnings("sglang", "none").find("not a byte of traffic"), std::string::npos);
  EXPECT_EQ(warnings("sglang", "deepep").find("not a byte of traffic"), std::string::npos);
  EXPECT_NE(warnings("sglang", "deepep")
                .find("SGLang sends one copy for every chosen expert with backend deepep in "
                      "--deepep-mode low_latency, or auto while it decodes: "),
            std::string::npos);
  EXPECT_EQ(warnings("tensorrt-llm", ""), "");
  EXPECT_NE(warnings("sglang", "megamoe")
                .find("SGLang, with backend megamoe: the exchange is hidden under the experts' "
                      "products: placement saves no time here"),
            std::string::npos);
  EXPECT_EQ(find_backend(find_engine("sglang"), "naive"), nullptr);
  EXPECT_NE(warnings("permutation", "")
                .find("Megatron-Core sends every token to every rank with the default backend "
                      "allgather: "),
            std::string::npos);
}

TEST(Export, WarnsWhereTheEngineChoosesOtherReplicasThanPredicted) {
  Plan plan = unconstrained_plan();
  plan.layers[0].placement = make_placement(4, {{0, 3, 1}, {1, 2, 3}});
  plan.layers[1].placement = make_placement(4, {{0, 1, 2}, {1, 2, 3}});
  plan.predictions[0].replica_rule = ReplicaRule::kFewestRanks;
  const auto last_warning = [&](std::string_view target) {
    const auto warnings =
        export_plan(find_export_target(target), plan, {.num_hidden_layers = 4}).warnings;
    return warnings.empty() ? "" : warnings.back();
  };
  EXPECT_EQ(last_warning("tensorrt-llm"),
            "the plan's predictions assume the replica rule fewest-ranks, but TensorRT-LLM chooses "
            "as random does: see what that gives with c2r simulate --replica-rule random");
  EXPECT_NE(last_warning("sglang").find("SGLang chooses as local-first does"), std::string::npos);
  EXPECT_EQ(last_warning("eplb"), "") << "we do not know who reads it";
  plan.predictions[0].replica_rule = ReplicaRule::kRandom;
  EXPECT_EQ(last_warning("tensorrt-llm"), "");
  plan.predictions.clear();
  EXPECT_EQ(last_warning("tensorrt-llm"), "") << "nothing was predicted";
  EXPECT_EQ(export_plan(find_export_target("tensorrt-llm"), unconstrained_plan(), {}).warnings,
            std::vector<std::string>())
      << "no replicas";
}

TEST(Export, WarnsThatTheConstraintStaysBehind) {
  EXPECT_EQ(
      export_plan(find_export_target("tensorrt-llm"), small_plan(), {}).warnings,
      (std::vector<std::string>{"the plan constrains routing to 1 collaborators of an expert, "
                                "which TensorRT-LLM cannot be told: it routes without the "
                                "constraint"}));
}

TEST(Export, SaysHowTheEngineLoadsThePlan) {
  Plan plan = unconstrained_plan();
  const auto usage = [&](std::string_view target) {
    return export_usage(find_export_target(target), plan, "a/map");
  };
  EXPECT_EQ(usage("vllm-49572"),
            "--enable-expert-parallel --enable-eplb --eplb-config.num_redundant_experts 0 "
            "--eplb-config.initial_expert_map_path a/map");
  for (PlanLayer& layer : plan.layers) {
    layer.placement = make_placement(4, {{0, 3, 1}, {1, 2, 3}});
  }
  EXPECT_EQ(usage("sglang"),
            "--ep-size 2 --ep-num-redundant-experts 2 --init-expert-location a/map "
            "--ep-dispatch-algorithm static");
  EXPECT_EQ(usage("vllm-41141"),
            "--enable-expert-parallel --enable-eplb --eplb-config.num_redundant_experts 2 "
            "--eplb-config.initial_mapping_path a/map "
            "--eplb-config.disable_online_rebalancing true");
  EXPECT_EQ(usage("tensorrt-llm"), "moe_config: {backend: WIDEEP, load_balancer: a/map}");
  plan.layers.clear();
  EXPECT_NE(error_of([&] { (void)usage("sglang"); }), "no error");
}

TEST(Export, SaysWhatItCannotWrite) {
  Plan plan = small_plan();
  EXPECT_EQ(error_of([&] { exported("sglang", plan, {.num_hidden_layers = 3}); }),
            "the model has 3 hidden layers, but the plan is for layer 3, too");
  plan.layers[1].placement = make_placement(4, {{0, 1, 2}, {1, 2, 3}});
  for (const char* const target :
       {"sglang", "tensorrt-llm", "vllm-41141", "vllm-49572", "vllm-ascend", "eplb"}) {
    EXPECT_EQ(error_of([&] { exported(target, plan); }),
              std::string(target) +
                  " takes one number of slots for all layers, but layer 1 has 4 and layer 3 has 6: "
                  "give every layer the same redundant slots");
  }
  EXPECT_EQ(error_of([&] { exported("omni-infer", plan); }), "no error");
  EXPECT_EQ(error_of([&] { exported("permutation", plan); }),
            "layer 3 has 6 slots for 4 experts, but a permutation cannot express replicas");
  EXPECT_EQ(error_of([&] { check_export_path(find_export_target("eplb"), "a.npy", "path"); }),
            "path 'a.npy' must end in .json, by which eplb knows the form of the file");
  check_export_path(find_export_target("eplb"), "a.json", "path");
  EXPECT_EQ(error_of([&] { exported("vllm", plan); }),
            "an export target is sglang, tensorrt-llm, vllm-41141, vllm-49572, vllm-ascend, "
            "omni-infer, eplb, permutation; not 'vllm'");
}

}  // namespace
}  // namespace c2r
