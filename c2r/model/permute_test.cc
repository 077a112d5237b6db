// Permutes the experts of checkpoints and compares the models before and after.
#include "c2r/model/permute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/model/decoder.h"

namespace c2r {
namespace {

using testing::error_of;

std::filesystem::path golden(const std::string& family) {
  return std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / family;
}

// Random orders of the experts, over two ranks.
Plan random_plan(const ModelConfig& config, unsigned seed) {
  std::mt19937_64 rng(seed);
  Plan plan{.num_experts = config.num_experts, .top_k = config.top_k};
  for (const std::int32_t layer : config.moe_layers) {
    Placement placement = place_contiguous(config.num_experts, 2);
    shuffle(placement.slots.all(), rng);
    plan.layers.push_back({.layer_index = layer, .placement = placement});
  }
  return plan;
}

struct Result {
  Matrix<float> states;
  std::vector<Routing> routings;
};

Result run(const Model& model) {
  ThreadPool pool(1);
  Decoder decoder(model.config(), model.weights(), Arithmetic::kF32, pool);
  KvCache cache(model.config(), Arithmetic::kF32, 40);
  std::vector<TokenId> tokens;
  for (std::int32_t t = 0; t < 40; ++t) tokens.push_back(TokenId{t * 7 % 64});
  const SequenceSlice slice{&cache, tokens};
  Result result;
  const auto states = decoder.forward({&slice, 1}, [&](std::int64_t, const Routing& routing) {
    result.routings.push_back(routing);
  });
  result.states = Matrix<float>(states.rows(), states.cols());
  std::copy_n(states.data(), states.rows() * states.cols(), result.states.all().data());
  return result;
}

// A copy of a golden model whose config constrains routing.
std::filesystem::path constrained_copy(const std::string& family) {
  const auto folder = testing::temporary_path(family + "_constrained");
  std::filesystem::copy(golden(family), folder);
  Json json = read_json_file(folder / "config.json");
  const Json expected = read_json_file(folder / "expected.json").at("c2r");
  json["top_t"] = expected.at("top_t");
  json["collaborative_list"] = expected.at("collaborative_list");
  write_text_file(folder / "config.json", json.dump());
  return folder;
}

// That `permuted` computes what `model` does, with experts in the slots of `plan`.
void expect_same_results(const Model& model, const Model& permuted, const Plan& plan) {
  const Result before = run(model), after = run(permuted);
  // Every product is the same; the softmax's denominator is added in another order of experts,
  // which changes a weight by some 2^-24, and each layer passes it on.
  for (std::size_t i = 0; i < before.states.all().size(); ++i) {
    ASSERT_NEAR(after.states.all()[i], before.states.all()[i], 1e-4f);
  }
  for (std::size_t layer = 0; layer < before.routings.size(); ++layer) {
    const auto slots = plan.layers[layer].placement.slots.all();
    const auto was = before.routings[layer].topk_idx.all(),
               is = after.routings[layer].topk_idx.all();
    for (std::size_t i = 0; i < is.size(); ++i) ASSERT_EQ(slots[index(is[i])], was[i]);
  }
}

void expect_same_model(const std::filesystem::path& folder, const std::string& name) {
  const Model model(folder);
  const Plan plan = random_plan(model.config(), 3);
  const auto output = testing::temporary_path(name);
  NoProgress progress;
  permute_checkpoint(model, plan, "plan.json", output, progress);
  expect_same_results(model, Model(output), plan);
}

TEST(PermuteCheckpoint, TheNewModelComputesTheSameWithExpertsInTheirSlots) {
  for (const Family& family : families()) {
    const std::string name(family.model_type);
    SCOPED_TRACE(name);
    expect_same_model(golden(name), name);
  }
}

TEST(PermuteCheckpoint, CollaboratorListsFollowTheirExperts) {
  expect_same_model(constrained_copy("llama_moe"), "llama_moe");
  expect_same_model(constrained_copy("qwen2_moe"), "qwen2_moe");
}

TEST(PermuteCheckpoint, ListsOfThePlanBecomeTheConfigs) {
  const Model free(golden("qwen2_moe")), constrained(constrained_copy("qwen2_moe"));
  Plan plan = random_plan(free.config(), 3);
  plan.top_t = constrained.config().constraints[0].top_t;
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    plan.layers[layer].collaborators = constrained.config().constraints[layer].collaborators;
  }
  const auto output = testing::temporary_path("permuted");
  NoProgress progress;
  permute_checkpoint(free, plan, "plan.json", output, progress);
  expect_same_results(constrained, Model(output), plan);
}

TEST(PermuteCheckpoint, OtherFilesAreCopied) {
  const Model model(golden("mixtral"));
  const auto output = testing::temporary_path("permuted");
  NoProgress progress;
  permute_checkpoint(model, random_plan(model.config(), 1), "plan.json", output, progress);
  EXPECT_EQ(read_file(output / "expected.json"), read_file(model.folder() / "expected.json"));
}

TEST(PermuteCheckpoint, RefusesReplicasAndWhatIsThereAlready) {
  const Model model(golden("mixtral"));
  const auto output = testing::temporary_path("permuted");
  NoProgress progress;
  Plan plan = random_plan(model.config(), 1);
  EXPECT_EQ(error_of([&] {
              permute_checkpoint(model, plan, "plan.json", output.parent_path(), progress);
            }),
            fmt::format("'{}' exists already", output.parent_path().string()));
  plan.layers[1].placement.slots = Matrix<ExpertId>(2, 3);
  for (std::int32_t i = 0; i < 6; ++i) {
    plan.layers[1].placement.slots(i / 3, i % 3) = ExpertId{i % 4};
  }
  EXPECT_EQ(error_of([&] { permute_checkpoint(model, plan, "plan.json", output, progress); }),
            "plan.json, layer 1: expert 0 has 2 slots, but a checkpoint has each expert once");
  EXPECT_TRUE(std::filesystem::is_empty(output.parent_path()));
}

}  // namespace
}  // namespace c2r
