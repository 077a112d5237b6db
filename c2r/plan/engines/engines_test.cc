// Tests of the table of engines and of the readers of their placement files.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/engines/engine.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;

// MoE layers 1 and 3; 4 experts on 2 ranks.
const MapShape kShape = {.num_experts = 4, .ep_size = 2, .layer_indices = {1, 3}};

// The placements alone; `notes` as of read_placements().
std::vector<Placement> read(std::string_view file, std::string_view bytes, const MapShape& shape,
                            std::string_view place, std::vector<std::string>* notes = nullptr) {
  std::vector<Placement> placements;
  for (PlanLayer& layer :
       read_placements(find_export_target(file).file, bytes, shape, place, notes)) {
    placements.push_back(std::move(layer.placement));
  }
  return placements;
}

// A .npy file of bytes.
std::string npy(const std::string& descr, const std::string& array_shape,
                const std::vector<char>& values) {
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + array_shape + "), }";
  header.resize(117, ' ');
  return std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" +
         std::string(values.begin(), values.end());
}

TEST(ReadPlacements, TakesSglangsRowsOfMoeLayersOnly) {
  const auto placements =
      read("sglang", R"({"physical_to_logical_map": [[9], [0,3,1,2], [], [0,1,2,3], [0,0]]})",
           kShape, "f");
  ASSERT_EQ(placements.size(), 2u);
  EXPECT_EQ(placements[0], make_placement(4, {{0, 3}, {1, 2}}));
  EXPECT_EQ(placements[1], make_placement(4, {{0, 1}, {2, 3}}));
}

// EPLB gives rank 0 expert 0 twice, and rank 1 expert 3.
TEST(ReadPlacements, EmptiesSlotsWhoseExpertTheirRankHoldsTwice) {
  const auto layers = read_placements(
      find_export_target("sglang").file,
      R"({"physical_to_logical_map": [[], [0,1,0,3,3,2], [], [0,1,2,3,0,1]]})", kShape, "f");
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].layer_index, 1);
  EXPECT_EQ(layers[0].wasted_slots,
            (std::vector<WastedSlot>{{RankId{0}, 2, ExpertId{0}}, {RankId{1}, 1, ExpertId{3}}}));
  const std::vector<std::vector<std::int32_t>> ranks = {{0, 1, -1}, {3, -1, 2}};
  EXPECT_EQ(layers[0].placement, placement_of_ranks(4, ranks));
  EXPECT_EQ(layers[1].layer_index, 3);
  EXPECT_EQ(layers[1].wasted_slots, std::vector<WastedSlot>());
  EXPECT_EQ(layers[1].placement, make_placement(4, {{0, 1, 2}, {3, 0, 1}}));
}

TEST(ReadPlacements, TakesOneListForAllLayersFromVllm49572) {
  const auto placements = read("vllm-49572", "[0,1,2,3,0,1]", kShape, "f");
  ASSERT_EQ(placements.size(), 2u);
  EXPECT_EQ(placements[0], make_placement(4, {{0, 1, 2}, {3, 0, 1}}));
  EXPECT_EQ(placements[1], placements[0]);
}

TEST(ReadPlacements, ReadsACommentedYaml) {
  const auto placements =
      read("tensorrt-llm",
           "# made by hand\nnum_slots: 4\nlayer_updates_per_iter: 2\ninitial_global_assignments:\n"
           "  3: [3, 2, 1, 0]\n  1: [0, 1, 2, 3]",
           kShape, "f");
  EXPECT_EQ(placements[0], make_placement(4, {{0, 1}, {2, 3}}));
  EXPECT_EQ(placements[1], make_placement(4, {{3, 2}, {1, 0}}));
}

TEST(ReadPlacements, TakesOmniInfersPatternInAscendingOrder) {
  const MapShape shape = {.num_experts = 3, .ep_size = 2, .layer_indices = {5}};
  EXPECT_EQ(read("omni-infer", npy("|u1", "2, 1, 3", {1, 0, 1, 1, 1, 0}), shape, "f")[0],
            make_placement(3, {{0, 2}, {0, 1}}));
  const auto big = npy(">i2", "2, 1, 3", {0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0});
  EXPECT_EQ(read("omni-infer", big, shape, "f")[0], make_placement(3, {{0, 2}, {0, 1}}));
}

TEST(ReadPlacements, SaysWhatIsWrongWithSglangsMap) {
  const auto error = [](std::string_view text) {
    return error_of([&] { read("sglang", text, kShape, "f"); });
  };
  EXPECT_EQ(error(R"({"physical_to_logical_map": [], "logical_count": []})"),
            "f: the map has the unknown key \"logical_count\"; the known ones are "
            "physical_to_logical_map");
  EXPECT_EQ(error(R"({"logical_count": [[1, 2]]})"),
            "f: it has loads (logical_count), from which SGLang places by EPLB itself, and no "
            "placement");
  EXPECT_EQ(error(R"({"physical_to_logical_map": [[0,1,2,3],[0,1,2,3]]})"),
            "f: the map has 2 rows, but SGLang looks up row 3: rows count dense layers, too");
  EXPECT_EQ(error(R"({"physical_to_logical_map": [[],[0,1,2]]})"),
            "f: row 1 has 3 slots, which 2 ranks cannot share evenly");
  EXPECT_EQ(error(R"({"physical_to_logical_map": [[],[0,1,2,4]]})"),
            "f: row 1 names expert 4, but the model has experts 0 to 3");
  EXPECT_EQ(error(R"({"physical_to_logical_map": [[],[0,1,2,2]]})"),
            "f: row 1: expert 3 is on no rank");
  EXPECT_EQ(error(R"({"physical_to_logical_map": [[],[0,1,2,3],[],[0,1,2,3,0,1]]})"),
            "f: num_slots is 4, but a layer has 6 slots");
  EXPECT_EQ(error("[0]"), "f: the map is [0], but must be an object");
}

TEST(ReadPlacements, ReadsTensorrtLlmsDocumentedForms) {
  const auto expected =
      std::vector{make_placement(4, {{0, 3}, {1, 2}}), make_placement(4, {{0, 1}, {2, 3}})};
  const auto read_yaml = [](std::string_view text) {
    return read("tensorrt-llm", text, kShape, "f");
  };
  // Inside the engine's whole configuration, and with lists over several lines.
  EXPECT_EQ(read_yaml("enable_attention_dp: true\n"
                      "moe_config:\n"
                      "    backend: WIDEEP\n"
                      "    load_balancer:\n"
                      "        num_slots: 4  # two on each rank\n"
                      "        initial_global_assignments:\n"
                      "            1: [0, 3,\n"
                      "                1, 2]\n"
                      "            3:\n"
                      "            - 0\n"
                      "            - 1\n"
                      "            - 2\n"
                      "            - 3\n"),
            expected);
  EXPECT_EQ(read_yaml("{moe_config: {load_balancer: {num_slots: 4, initial_global_assignments: "
                      "{\"1\": [0, 3, 1, 2], 3: [0, 1, 2, 3]}}}}"),
            expected);
}

TEST(ReadPlacements, SaysWhatIsWrongWithAYaml) {
  const auto error_of_yaml = [](std::string_view text) {
    return error_of([&] { read("tensorrt-llm", text, kShape, "f"); });
  };
  const auto error = [&](std::string_view head, std::string_view layers) {
    return error_of_yaml(fmt::format("{}initial_global_assignments:\n{}", head, layers));
  };
  constexpr std::string_view kHead = "num_slots: 4\nlayer_updates_per_iter: 0\n";
  EXPECT_EQ(error(kHead, "  1: [0, 1, 2, 3]\n"), "f: the key '3' is missing");
  EXPECT_EQ(error(kHead, "  1: [0,1,2,3]\n  2: [0,1,2,3]\n  3: [0,1,2,3]\n"),
            "f: there is a layer '2', but the MoE layers are 1, 3");
  EXPECT_EQ(error("num_slots: 8\nlayer_updates_per_iter: 0\n", "  1: [0,1,2,3]\n  3: [0,1,2,3]\n"),
            "f: num_slots is 8, but a layer has 4 slots");
  EXPECT_EQ(error("num_slots: 4\nslots: 4\n", ""),
            "f: the yaml has the unknown key \"slots\"; the known ones are num_slots, "
            "layer_updates_per_iter, initial_global_assignments");
  EXPECT_EQ(error("num_slots: 4\nnum_slots: 4\n", ""),
            "f: line 2: the key 'num_slots' is there twice");
  EXPECT_EQ(error_of_yaml("num_slots: 16\nlayer_updates_per_iter: 2\n"),
            "f: has no initial_global_assignments, thus no placement: TensorRT-LLM starts with one "
            "of its own");
  EXPECT_EQ(error_of_yaml("moe_config:\n  backend: WIDEEP\n  load_balancer: ./eplb.yaml\n"),
            "f: names the load balancer's file \"./eplb.yaml\"; give that file instead");
  EXPECT_EQ(error_of_yaml("a: &a [1]\nb: *a\n"),
            "f: line 2: has an alias; write out what it stands for");
  EXPECT_EQ(error_of_yaml("[1]: 2\n"), "f: line 1: a key must be text or a number");
  EXPECT_EQ(error_of_yaml(""), "f: the yaml is null, but must be an object");
  EXPECT_EQ(error(kHead, "- 1\n  1: 2\n").substr(0, 25), "f: line 5: not valid yaml");
  EXPECT_EQ(error(kHead, "  \x1b[31m: 1\n"), "f: the key '1' is missing");
}

TEST(ReadPlacements, TakesTheLastMappingOfVllm41141) {
  const auto record = [](std::string_view row) {
    return fmt::format(
        R"({{"record_type": "eplb_initial_mapping", "version": 1, "num_redundant_experts": 0,)"
        R"("num_slots": 4, "initial_global_assignments": {{"0": {0}, "1": {0}}}}})",
        row);
  };
  constexpr std::string_view kLoads = R"({"record_type": "eplb_load_stats", "expert_load": []})";
  std::vector<std::string> notes;
  const auto placements = read(
      "vllm-41141", fmt::format("{}\n{}\n\n{}\n", record("[0,1,2,3]"), kLoads, record("[3,2,1,0]")),
      kShape, "f", &notes);
  EXPECT_EQ(placements, std::vector(2, make_placement(4, {{3, 2}, {1, 0}})));
  EXPECT_EQ(notes, (std::vector<std::string>{"read: the last of 2 mappings",
                                             "left out: 1 records of loads"}));
  EXPECT_EQ(error_of([&] { read("vllm-41141", kLoads, kShape, "f"); }),
            "f: has no record 'eplb_initial_mapping', thus no placement");
  EXPECT_EQ(error_of([&] {
              read("vllm-41141", fmt::format("{}\n{{", kLoads), kShape, "f");
            }).substr(0, 26),
            "f: line 2: not valid JSON:");
}

// The shared expert has the id after the 4 routed ones, and the map has a layer for multi-token
// prediction.
TEST(ReadPlacements, LeavesOutWhatVllmAscendAlwaysHas) {
  const std::string devices = R"("device_count": 2, "device_list": [{"device_expert": [4, 0, 3]},)"
                              R"({"device_expert": [1, 4, 2]}]})";
  const std::string map = fmt::format(
      R"({{"moe_layer_count": 3, "layer_list": [{{"layer_id": 1, {0}, {{"layer_id": 2, {0}, {{{0}]}})",
      devices);
  std::vector<std::string> notes;
  const auto placements = read("vllm-ascend", map, kShape, "f", &notes);
  EXPECT_EQ(placements, std::vector(2, make_placement(4, {{0, 3}, {1, 2}})));
  EXPECT_EQ(notes, (std::vector<std::string>{
                       "left out: layer 2 of the map, one more than the model has, thus of "
                       "multi-token prediction",
                       "left out: expert 4 of 2 layers, which is on every device, thus a shared "
                       "one"}));
}

// What eplb.rebalance_experts() returns for 4 experts in 6 slots, as lists.
TEST(ReadPlacements, ComparesTheThreeResultsOfEplb) {
  constexpr std::string_view kResults =
      R"({"physical_to_logical_map": [[0,3,1,1,2,0],[0,1,2,2,3,1]],
          "logical_to_physical_map": [[[0,5],[2,3],[4,-1],[1,-1]],[[0,-1],[1,5],[2,3],[4,-1]]],
          "logical_count": [[2,2,1,1],[1,2,2,1]]})";
  const auto placements = read("eplb", kResults, kShape, "f");
  ASSERT_EQ(placements.size(), 2u);
  EXPECT_EQ(placements[0], make_placement(4, {{0, 3, 1}, {1, 2, 0}}));
  EXPECT_EQ(placements[1], make_placement(4, {{0, 1, 2}, {2, 3, 1}}));
  std::string changed(kResults);
  changed.replace(changed.find("[0,5]"), 5, "[0,4]");
  EXPECT_EQ(error_of([&] { read("eplb", changed, kShape, "f"); }),
            "f: row 0: the inverse maps put expert 0 into slots 0 4, but the map into 0 5");
}

TEST(ReadPlacements, SaysWhatIsWrongWithVllmsRecord) {
  const auto error = [](std::string_view head, std::string_view map) {
    const auto text = fmt::format(
        R"({{{}, "version": 1, "num_slots": 4, "initial_global_assignments": {}}})", head, map);
    return error_of([&] { read("vllm-41141", text, kShape, "f"); });
  };
  constexpr std::string_view kHead =
      R"("record_type": "eplb_initial_mapping", "num_redundant_experts": 0)";
  EXPECT_EQ(error(kHead, R"({"1": [0,1,2,3], "3": [0,1,2,3]})"),
            "f: line 1: the key '0' is missing")
      << "layers are ordinals, not the model's indices";
  EXPECT_EQ(error(kHead, R"({"0": [0,1,2,3], "1": [0,1,2,3]})"), "no error");
  EXPECT_EQ(error(R"("record_type": "a\nb", "num_redundant_experts": 0)", "{}"),
            "f: line 1: record_type is 'a\\nb', not 'eplb_initial_mapping'");
  EXPECT_EQ(error(kHead, R"({"0": [0,1,2,3], "1": [0,1,2,3], "a\nb": []})"),
            "f: line 1: there is a layer 'a\\nb', but the MoE layers are 0, 1");
  EXPECT_EQ(error(R"("record_type": "eplb_load_stats", "num_redundant_experts": 0)", "{}"),
            "f: has no record 'eplb_initial_mapping', thus no placement");
  EXPECT_EQ(error(R"("record_type": "eplb_initial_mapping", "num_redundant_experts": 1)", "{}"),
            "f: line 1: num_redundant_experts is 1, but must be an integer in [0, 0]");
}

TEST(ReadPlacements, SaysWhatIsWrongWithTheOtherForms) {
  EXPECT_EQ(error_of([] { read("vllm-49572", "[[0,1,2,3]]", kShape, "f"); }),
            "f: the map has 1 rows, but there are 2 MoE layers");
  const MapShape one = {.num_experts = 2, .ep_size = 2, .layer_indices = {4}};
  EXPECT_EQ(error_of([&] {
              read("vllm-ascend", R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 4,
                "device_count": 2, "device_list": []}]})",
                   one, "f");
            }),
            "f: layer 0 has 0 devices, but there are 2 ranks");
  EXPECT_EQ(error_of([&] {
              read("vllm-ascend", R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 0,
                "device_count": 2, "device_list": [{"device_id": 0, "device_expert": [0, 1]},
                {"device_id": 1, "device_expert": [1]}]}]})",
                   one, "f");
            }),
            "f: layer 0: device 1 has 1 experts, which is not what device 0 has");
  EXPECT_EQ(error_of([&] {
              read("eplb", R"({"physical_to_logical_map": [[1,0]], "logical_to_physical_map":
                [[[0],[1]]], "logical_count": [[1,1]]})",
                   one, "f");
            }),
            "f: row 0: the inverse maps put expert 0 into slots 0, but the map into 1");
  EXPECT_EQ(error_of([&] {
              read("permutation", R"({"num_experts": 2, "old_of_new": {"4": [1,0]},
                "new_of_old": {"4": [0,1]}})",
                   one, "f");
            }),
            "f: layer 4: new_of_old is not the inverse of old_of_new");
}

TEST(ReadPlacements, SaysWhatIsWrongWithAPattern) {
  const MapShape shape = {.num_experts = 2, .ep_size = 2, .layer_indices = {3}};
  const auto error = [&](const std::vector<char>& values) {
    return error_of([&] { read("omni-infer", npy("|u1", "2, 1, 2", values), shape, "f"); });
  };
  EXPECT_EQ(error({1, 0, 0, 2}), "f: rank 1, row 0, expert 1 is 2, but must be 0 or 1");
  EXPECT_EQ(error({1, 1, 0, 1}),
            "f: row 0: rank 1 holds 1 experts, which is not what rank 0 holds");
  EXPECT_EQ(error({1, 0, 1, 0}), "f: row 0: expert 1 is on no rank");
  EXPECT_EQ(error({0, 0, 0, 0}), "f: row 0 has 0 slots, which 2 ranks cannot share evenly");
  EXPECT_NE(error({1, 0, 1}), "no error");
  EXPECT_EQ(
      error_of([&] {
        read("omni-infer", npy("|u1", "2, 2", {1, 0, 0, 1}), shape, "f");
      }),
      "f: the array is U8 [2, 2], but must be integers [2, 1, 2]: ranks, MoE layers, experts");
  EXPECT_EQ(error_of([&] {
              read("omni-infer", npy("<f2", "1, 1, 1", {0, 0}), shape, "f");
            }),
            "f: the array is F16 [1, 1, 1], but must be integers [2, 1, 2]: ranks, MoE layers, "
            "experts");
}

TEST(ReadPlacements, RefusesAShapeThatIsOutOfRange) {
  const auto error = [](const MapShape& shape) {
    return error_of([&] { read("vllm-49572", "[[0,1,2,3]]", shape, "f"); });
  };
  EXPECT_EQ(error({.num_experts = 0, .ep_size = 2, .layer_indices = {0}}),
            "num_experts is 0, but must be in [1, 1024]");
  EXPECT_EQ(error({.num_experts = 4, .ep_size = 0, .layer_indices = {0}}),
            "ep_size is 0, but must be in [1, 1024]");
  EXPECT_EQ(error({.num_experts = 4, .ep_size = 2}),
            "there are 0 MoE layers, but must be 1 to 1024");
  EXPECT_EQ(error({.num_experts = 4, .ep_size = 2, .layer_indices = {0, 2, 2}}),
            "layer_indices must ascend within [0, 65535]");
  EXPECT_EQ(error({.num_experts = 4, .ep_size = 2, .layer_indices = {-1, 0}}),
            "layer_indices must ascend within [0, 65535]");
}

TEST(Engines, HaveOneRowEachAndFilesOfTheirOwn) {
  std::string names, files;
  for (const EngineRow& engine : engines()) {
    names += std::string(engine.name) + " ";
    EXPECT_EQ(&find_engine(engine.name), &engine);
    for (const PlacementFile& file : engine.files) {
      files += std::string(file.name) + " ";
      EXPECT_EQ(&find_export_target(file.name).file, &file);
      EXPECT_EQ(&find_export_target(file.name).engine, &engine);
    }
  }
  EXPECT_EQ(names,
            "sglang tensorrt-llm vllm vllm-ascend omni-infer eplb megatron transformers torchtitan "
            "deepspeed axolotl ");
  EXPECT_EQ(files,
            "sglang tensorrt-llm vllm-41141 vllm-49572 vllm-ascend omni-infer eplb permutation ");
  EXPECT_EQ(error_of([] { find_engine("vllm-41141"); }),
            "an engine is sglang, tensorrt-llm, vllm, vllm-ascend, omni-infer, eplb, megatron, "
            "transformers, torchtitan, deepspeed, axolotl; not 'vllm-41141'");
}

TEST(Engines, SayHowTheirBackendsSendCopies) {
  const auto mode = [](std::string_view engine, std::string_view backend) {
    const Backend* const found = find_backend(find_engine(engine), backend);
    return found == nullptr ? "unknown" : std::string(name_of(*found->kernels[0].mode));
  };
  EXPECT_EQ(mode("vllm", "deepep_low_latency"), "per-expert");
  EXPECT_EQ(mode("vllm", ""), "all-gather") << "the default is the first";
  EXPECT_EQ(mode("megatron", "flex"), "per-node");
  EXPECT_EQ(mode("transformers", "all_to_all"), "per-expert");
  EXPECT_EQ(mode("vllm", "flashinfer_nvlink_two_sided"), "per-rank");
  EXPECT_EQ(mode("sglang", "pplx"), "per-expert");
  EXPECT_EQ(mode("torchtitan", "minimal_async_ep"), "per-expert");
  EXPECT_EQ(mode("axolotl", "deep_ep"), "per-node") << "by the name of Axolotl's own option";
  EXPECT_EQ(mode("axolotl", "torch"), "per-rank");
  EXPECT_EQ(mode("tensorrt-llm", ""), "per-rank");
  EXPECT_EQ(mode("tensorrt-llm", "nccl_ep"), "per-rank") << "rank-major";
  EXPECT_EQ(mode("tensorrt-llm", "deepep_low_latency"), "per-expert");
  EXPECT_EQ(mode("vllm", "nccl_ep"), "per-node") << "in the flat layout";
  EXPECT_EQ(find_backend(find_engine("megatron"), "flex")->kernels[2].mode, std::nullopt)
      << "expert-major";
  EXPECT_EQ(mode("vllm", "pplx"), "unknown");
  EXPECT_EQ(mode("eplb", ""), "unknown");
  EXPECT_EQ(find_engine("sglang").replica_rule, ReplicaRule::kLocalFirst);
  EXPECT_EQ(find_engine("eplb").replica_rule, std::nullopt);
}

TEST(Engines, NameTheSourceOfEveryKernelAndSayWhatNoCopyModeDescribes) {
  for (const EngineRow& engine : engines()) {
    EXPECT_FALSE(engine.title.empty()) << engine.name;
    for (const Backend& backend : engine.backends) {
      ASSERT_FALSE(backend.kernels.empty()) << engine.name << " " << backend.name;
      for (const ExchangeKernel& kernel : backend.kernels) {
        EXPECT_FALSE(kernel.title.empty()) << engine.name << " " << backend.name;
        EXPECT_FALSE(kernel.source.empty()) << kernel.title;
        EXPECT_TRUE(kernel.mode || !kernel.verdict.empty()) << kernel.title;
      }
    }
  }
}

TEST(Engines, AreFoundWithTheirBackends) {
  EXPECT_EQ(find_engine_backend("sglang", "deepep").backend->kernels[1].title,
            "DeepEP low latency");
  EXPECT_EQ(find_engine_backend("megatron", "").backend->name, "allgather");
  EXPECT_EQ(
      error_of([] { find_engine_backend("tensorrt-llm", "pp\nlx"); }),
      "a backend of tensorrt-llm is alltoall, nccl_ep, deepep, deepep_low_latency, allgather, "
      "megamoe; not 'pp\\nlx'");
  EXPECT_EQ(
      error_of([] { find_engine_backend("eplb", ""); }),
      "c2r does not know how eplb sends copies: leave the engine out, and give the copy mode");
}

// omni-infer's DeepSeek-V3 placements: 58 MoE layers of 256 experts, on 8 ranks of 32 slots and on
// 16 of 17.
TEST(ReadPlacementsOnRealData, ReadsOmniInfersPublishedPlacements) {
  MapShape shape = {.num_experts = 256};
  for (std::int32_t layer = 3; layer < 61; ++layer) shape.layer_indices.push_back(layer);
  for (const auto& [name, ep_size, slots] :
       {std::tuple("omni_infer_dsv3_8_ranks", 8, 32),
        std::tuple("omni_infer_dsv3_16_ranks_redundant", 16, 17)}) {
    const auto path = testing::real_data("placements/" + std::string(name) + ".npy.xz");
    C2R_SKIP_WITHOUT(path);
    shape.ep_size = ep_size;
    const auto placements = read("omni-infer", read_text_file(path), shape, path.string());
    ASSERT_EQ(placements.size(), 58u);
    for (const Placement& placement : placements) EXPECT_EQ(placement.slots_per_rank(), slots);
  }
}

}  // namespace
}  // namespace c2r
