// Tests of the plan file: round trips, older versions, and the message of every refusal.
#include "c2r/plan/plan.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::random_plan;
using testing::small_plan;

constexpr std::string_view kSmallText = R"({
  "format": "c2r-plan",
  "version": 3,
  "model": "tiny",
  "num_experts": 4,
  "top_k": 2,
  "top_t": 1,
  "cluster": {
    "num_nodes": 1,
    "ranks_per_node": 2,
    "intra_node": {
      "bandwidth_bytes_per_s": 400000000000.0,
      "latency_s": 2e-06
    },
    "inter_node": {
      "bandwidth_bytes_per_s": 50000000000.0,
      "latency_s": 5e-06
    }
  },
  "layers": [
    {
      "layer_index": 1,
      "slots": [[0,3],[1,2]],
      "collaborators": [[3],[2],[1],[0]]
    },
    {
      "layer_index": 3,
      "slots": [[0,1],[2,3]],
      "collaborators": [[1],[0],[3],[2]]
    }
  ],
  "predictions": [
    {
      "placement": "plan",
      "trace": "t.safetensors",
      "num_tokens": 10,
      "copy_mode": "per-rank",
      "replica_rule": "local-first",
      "homes": "uniform",
      "is_exact": true,
      "copies_per_token": [1.1,1.5],
      "wire_copies_per_token": [0.55,0.75],
      "inter_node_copies_per_token": [0.0,0.0],
      "imbalance": [1.0,1.25]
    }
  ],
  "provenance": {
    "c2r_version": "0.1.0",
    "method": "affinity",
    "seed": 7,
    "inputs": [
      {
        "role": "trace",
        "name": "t.safetensors",
        "part": "even",
        "hash": "0123456789abcdef"
      }
    ],
    "options": {
      "fit": "even",
      "max_imbalance": 1.1
    },
    "ended_by": "interrupt"
  }
}
)";

TEST(Plan, IsWrittenAsDocumented) {
  EXPECT_EQ(plan_to_text(small_plan()), kSmallText);
  EXPECT_EQ(parse_plan(kSmallText, "p.json"), small_plan());
}

TEST(Plan, ReadsBackWhatItWrote) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Plan plan = random_plan(seed);
    if (seed % 2 == 1) {  // layers with different numbers of slots
      std::mt19937_64 rng(seed);
      for (PlanLayer& layer : plan.layers) {
        layer.placement =
            testing::random_placement(plan.num_experts, plan.cluster.ep_size(), 2, rng);
      }
    }
    const auto path = testing::temporary_path("p.json");
    write_plan(plan, path);
    EXPECT_EQ(read_plan(path), plan);
    EXPECT_EQ(plan_to_text(read_plan(path)), read_text_file(path)) << "not the same bytes";
  }
}

TEST(Plan, TakesItsPredictionFromVolumes) {
  const Placement placement = place_contiguous(4, 2);
  const TrafficModel traffic = {.cluster = {.ranks_per_node = 2}};
  ReachCounter counter(placement, traffic);
  const std::vector<ExpertId> topk_idx = {ExpertId{0}, ExpertId{1}, ExpertId{0}, ExpertId{2}};
  counter.add(MatrixView<const ExpertId>(topk_idx.data(), 2, 2), {});
  const std::vector volumes(2, volume_of(counter.finish(), traffic));
  const std::vector<PredictedLayerTime> times(2, {.predicted_total_s = 0.25});
  const Prediction prediction = make_prediction(traffic, volumes, times);
  EXPECT_EQ(prediction.num_tokens, 2);
  EXPECT_EQ(prediction.copies_per_token, (std::vector{1.5, 1.5}));
  EXPECT_EQ(prediction.wire_copies_per_token, (std::vector{0.75, 0.75}));
  EXPECT_EQ(prediction.imbalance, (std::vector{1.5, 1.5}));
  EXPECT_EQ(prediction.predicted_layer_time_s, (std::vector{0.25, 0.25}));
  EXPECT_EQ(error_of([&] { make_prediction(traffic, volumes, std::span(times).first(1)); }),
            "a prediction needs a volume and none or one time a layer, not 2 and 1");
}

TEST(Plan, NamesTheTrafficModelOfItsPrediction) {
  const TrafficModel traffic = {.cluster = {.ranks_per_node = 2},
                                .copy_mode = CopyMode::kPerExpert,
                                .replica_rule = ReplicaRule::kRandom,
                                .homes = Homes::kSequences};
  ReachCounter counter(place_contiguous(4, 2), traffic);
  const std::vector volumes = {volume_of(counter.finish(), traffic)};
  const Prediction prediction = make_prediction(traffic, volumes, {});
  EXPECT_EQ(prediction.copy_mode, CopyMode::kPerExpert);
  EXPECT_EQ(prediction.replica_rule, ReplicaRule::kRandom);
  EXPECT_EQ(prediction.homes, Homes::kSequences);
}

// All layers see the same tokens; the slots may differ from layer to layer. The last of three
// layers differs.
TEST(Plan, RefusesAPredictionFromMixedVolumes) {
  const std::vector<ExpertId> topk_idx = {ExpertId{0}, ExpertId{1}, ExpertId{0}, ExpertId{2}};
  const TrafficModel traffic = {.cluster = {.ranks_per_node = 2}};
  const auto volume = [&](const Placement& placement, std::int64_t num_tokens) {
    ReachCounter counter(placement, traffic);
    counter.add(MatrixView<const ExpertId>(topk_idx.data(), num_tokens, 2), {});
    return volume_of(counter.finish(), traffic);
  };
  const Placement contiguous = place_contiguous(4, 2);
  const Placement with_replicas = testing::make_placement(4, {{0, 1, 2}, {2, 3, 0}});
  const Volume first = volume(contiguous, 2);
  EXPECT_EQ(error_of([&] {
              make_prediction(traffic, std::vector{first, first, volume(contiguous, 1)}, {});
            }),
            "the layers of a prediction have 2 and 1 tokens, but must have the same number");
  // With the replicas, both tokens find all their experts on one rank.
  const auto mixed_slots =
      make_prediction(traffic, std::vector{first, volume(with_replicas, 2)}, {});
  EXPECT_EQ(mixed_slots.copies_per_token, (std::vector{1.5, 1.0}));
}

// Each line replaces the first occurrence of `from` in the small plan's text.
TEST(Plan, SaysWhatIsWrongWithAFile) {
  struct Case {
    std::string_view from, to, message;
  };
  for (const auto& [from, to, message] : {
           Case{"\"version\": 3", "\"version\": 4",
                "p: the plan has version 4, but this program reads versions 1 to 3"},
           Case{"c2r-plan", "c2r-trace", "p: the format is 'c2r-trace', not 'c2r-plan'"},
           Case{"\"top_k\": 2,", "\"top_k\": 2, \"top_p\": 1,",
                "p: the plan has the unknown key \"top_p\"; the known ones are format, version, "
                "model, num_experts, top_k, top_t, cluster, layers, homes, predictions, "
                "provenance"},
           Case{"\"top_k\": 2,", "", "p: the key 'top_k' is missing"},
           Case{"\"top_k\": 2,", "\"top_k\": 5,", "p: top_k is 5, but must be in [1, 4]"},
           Case{"\"top_t\": 1,", "\"top_t\": 4,",
                "p: top_t is 4, but the longest lists have 1 collaborators"},
           Case{"\"top_t\": 1,", "",
                "p: layer 1 has 4 x 1 collaborators, but the plan has no top_t"},
           Case{",\n      \"collaborators\": [[3],[2],[1],[0]]", "",
                "p: layer 1 has 0 x 0 collaborators, but top_t asks for 4 lists of 1 to 3"},
           Case{"[[3],[2],[1],[0]]", "[[],[],[],[]]",
                "p: layer 1 has 4 x 0 collaborators, but top_t asks for 4 lists of 1 to 3"},
           Case{"[[3],[2]", "[[0],[2]",
                "p: layer 1: expert 0 has the collaborator 0, but they must be other experts below "
                "4, each once"},
           Case{"[[0,3],[1,2]]", "[[0,3],[1,1]]", "p: layer 1: rank 1 holds expert 1 twice"},
           Case{
               "[[0,3],[1,2]]", "[[0,3],[1,2]],\n\"wasted_slots\": [[1,1]]",
               "p: layer 1: slot 1 of rank 1 is called wasted, but no other slot of the rank holds "
               "its expert 2"},
           Case{"[[0,3],[1,2]]", "[[0,3],[1,2]],\n\"wasted_slots\": [[1,2]]",
                "p: layer 1: slot 2 of rank 1 is called wasted, but there are 2 ranks of 2 slots"},
           Case{"[[0,3],[1,2]]", "[[0,3],[1,2]],\n\"wasted_slots\": [[1]]",
                "p: a wasted slot has 1 numbers, but must have a rank and a slot"},
           Case{"[[0,3],[1,2]]", "[[0,3],[1,3]]", "p: layer 1: expert 2 is on no rank"},
           Case{"[[0,3],[1,2]]", "[[0,3],[1]]", "p: slots has rows of 2 and of 1 experts"},
           Case{"[[0,3],[1,2]]", "[[0,4],[1,2]]",
                "p: an expert in slots is 4, but must be an integer in [0, 3]"},
           Case{
               "[[0,3],[1,2]]", "[[0,3,1,2]]",
               "p: layer 1 places 4 experts on 1 ranks, but the plan is for 4 experts and 2 ranks"},
           Case{"\"layer_index\": 3", "\"layer_index\": 1",
                "p: layer_index 1 must be in [2, 65535]: layers ascend"},
           Case{"\"layer_index\": 3", "\"layer_index\": 65536",
                "p: layer_index 65536 must be in [2, 65535]: layers ascend"},
           Case{"[1.1,1.5]", "[1.1]",
                "p: a prediction has 1 values of copies_per_token, but the plan has 2 layers"},
           Case{"[1.1,1.5]", "[1.1,-1]",
                "p: copies_per_token is -1, but must be a number of at least 0"},
           Case{"\"copies_per_token\": [1.1,1.5],\n", "",
                "p: a prediction has 0 values of copies_per_token, but the plan has 2 layers"},
           Case{"\"homes\": \"uniform\"", "\"homes\": \"signature\"",
                "p: a prediction has homes by signature, but the plan has none"},
           Case{"\"part\": \"even\"", "\"part\": \"third\"",
                "p: a part of a trace is all, even, odd, first-half or second-half; not 'third'"},
           Case{"\"role\": \"trace\"", "\"role\": \"placement\"",
                "p: the input 't.safetensors' has the part even, but only traces have parts"},
           Case{"per-rank", "per-token",
                "p: a copy mode is per-expert, per-rank, per-node or all-gather; not 'per-token'"},
           Case{"\"is_exact\": true", "\"is_exact\": 1",
                "p: is_exact is 1, but must be true or false"},
           Case{"\"seed\": 7", "\"seed\": -7",
                "p: seed is -7, but must be an integer in [0, 9223372036854775807]"},
           Case{"\"method\"", "\"date\": 1, \"method\"",
                "p: provenance has the unknown key \"date\"; the known ones are c2r_version, "
                "method, seed, inputs, options, ended_by"},
           Case{"\"fit\": \"even\"", "\"fit\": true",
                "p: the option 'fit' must be a number or a text"},
       }) {
    std::string text(kSmallText);
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    EXPECT_EQ(error_of([&] { parse_plan(text, "p"); }), message);
  }
  EXPECT_EQ(error_of([] { parse_plan("[]", "p"); }),
            "p: expected a JSON object with the key 'format'");
}

TEST(Plan, RefusesToWriteAPlanThatCannotBeRead) {
  Plan plan = small_plan();
  plan.layers.clear();
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }),
            "a plan has 0 layers, but must have from 1 to 1024");
  plan = small_plan();
  plan.provenance.seed = UINT64_MAX;
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }),
            "the seed is 18446744073709551615, but JSON numbers end at 2^63 - 1");
  plan = small_plan();
  plan.provenance.options.push_back(plan.provenance.options[0]);
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }), "the option fit is named twice");
  plan = small_plan();
  plan.predictions[0].imbalance[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(error_of([&] { plan_to_text(plan); }),
            "a prediction's imbalance is nan, but must be a number of at least 0");
}

TEST(Plan, KeepsWastedSlotsWithTheirExperts) {
  Plan plan = small_plan();
  const std::vector<std::vector<std::int32_t>> ranks = {{0, 3, -1}, {1, -1, 2}};
  plan.layers[0].placement = placement_of_ranks(4, ranks);
  plan.layers[0].wasted_slots = {{RankId{0}, 2, ExpertId{0}}, {RankId{1}, 1, ExpertId{2}}};
  const std::string text = plan_to_text(plan);
  EXPECT_NE(text.find("\"slots\": [[0,3,0],[1,2,2]],\n      \"wasted_slots\": [[0,2],[1,1]]"),
            std::string::npos)
      << text;
  EXPECT_EQ(parse_plan(text, "p"), plan);
  EXPECT_EQ(*wasted_slots_text(plan),
            "2 slots in 1 of 2 layers are wasted: their rank holds the expert in another slot, too "
            "(the first is slot 2 of rank 0 in layer 1)");
  EXPECT_EQ(wasted_slots_text(small_plan()), std::nullopt);

  const auto error_with = [&](std::vector<WastedSlot> wasted) {
    Plan changed = plan;
    changed.layers[0].wasted_slots = std::move(wasted);
    return error_of([&] { check_plan(changed); });
  };
  EXPECT_EQ(error_with({}), "layer 1: rank 0 has an empty slot 2");
  EXPECT_EQ(error_with({plan.layers[0].wasted_slots[0]}), "layer 1: rank 1 has an empty slot 1");
  EXPECT_EQ(error_with({{RankId{0}, 1, ExpertId{0}}}),
            "layer 1: slot 1 of rank 0 is called wasted, but it is in use");
  EXPECT_EQ(
      error_with({{RankId{1}, 1, ExpertId{2}}, {RankId{0}, 2, ExpertId{0}}}),
      "layer 1: wasted slots must ascend by rank and slot, but slot 1 of rank 1 stands before "
      "slot 2 of rank 0");
}

}  // namespace
}  // namespace c2r
