// Reads good and bad configs and plans.
#include "c2r/model/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "c2r/core/testing.h"
#include "c2r/model/config/config_reader.h"

namespace c2r {
namespace {

using testing::error_of;

// The smallest of each of the paper's two families. What is refused is tested in tests/malformed.
Json qwen2() {
  return {{"model_type", "qwen2_moe"},  {"hidden_size", 8},
          {"vocab_size", 16},           {"num_hidden_layers", 4},
          {"num_attention_heads", 2},   {"max_position_embeddings", 32},
          {"rms_norm_eps", 1e-6},       {"rope_theta", 1e6},
          {"num_experts", 4},           {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 3}, {"shared_expert_intermediate_size", 5},
          {"intermediate_size", 7},     {"norm_topk_prob", false}};
}

Json llama_moe() {
  return {{"model_type", "llama_moe"}, {"hidden_size", 8},         {"vocab_size", 16},
          {"num_hidden_layers", 2},    {"num_attention_heads", 2}, {"max_position_embeddings", 32},
          {"rms_norm_eps", 1e-5},      {"num_experts", 2},         {"num_selects", 1},
          {"intermediate_size", 10}};
}

TEST(Config, ReadsWhatItSays) {
  Json json = qwen2();
  json["num_key_value_heads"] = 1;
  json["eos_token_id"] = {3, 5};
  const ModelConfig c = parse_config(json, "config.json");
  EXPECT_EQ(c.family->name, "Qwen2-MoE");
  EXPECT_EQ(c.hidden, 8);
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.num_kv_heads, 1);
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.eos_ids, (std::vector{TokenId{3}, TokenId{5}}));
  EXPECT_EQ(c.shared_intermediate, 5);
  EXPECT_EQ(c.moe_layers, (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(c.dense_intermediate, 0);
  EXPECT_TRUE(c.constraints.empty());
}

// Hugging Face's rule: every decoder_sparse_step-th layer, counted from 1, but those listed.
TEST(Config, SomeLayersMayHaveNoExperts) {
  Json json = qwen2();
  json["num_hidden_layers"] = 8;
  json["decoder_sparse_step"] = 2;
  json["mlp_only_layers"] = {3};
  const ModelConfig c = parse_config(json, "config.json");
  EXPECT_EQ(c.moe_layers, (std::vector<std::int32_t>{1, 5, 7}));
  EXPECT_TRUE(c.is_moe(5));
  EXPECT_FALSE(c.is_moe(3));
  EXPECT_EQ(c.dense_intermediate, 7);
}

TEST(Config, SlicedExpertsShareOneWidth) {
  Json json = llama_moe();
  const ModelConfig even = parse_config(json, "config.json");
  EXPECT_EQ(even.intermediate, Matrix<std::int64_t>(2, 2, 5));
  EXPECT_EQ(even.routing_scale, (std::vector<float>{1, 1}));
  EXPECT_EQ(even.rope_theta, 10000);
  json["size_experts"] = {{4, 6}, {5, 5}};
  json["score_scale_factor"] = {4.0, 2.5};
  const ModelConfig uneven = parse_config(json, "config.json");
  EXPECT_EQ(uneven.intermediate(0, 1), 6);
  EXPECT_EQ(routing_policy(uneven, 1).scale, 2.5f);
  EXPECT_EQ(routing_policy(uneven, 1).scoring, Scoring::kSoftmaxOverChosen);
}

TEST(Config, ARopeOfTransformers5IsTheSame) {
  Json json = qwen2();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 5e5);
}

TEST(Config, ALayerThatIsNotThereHasNoPolicy) {
  ModelConfig config;
  config.family = &families()[0];
  config.moe_layers = {0, 2};
  config.routing_scale = {1, 1};
  EXPECT_EQ(error_of([&] {
              for (const std::int64_t layer : {0, 1, 2}) (void)routing_policy(config, layer);
            }),
            "there is no MoE layer 2 in a model with 2");
}

TEST(Config, ANumberOfExpertsAsTransformers5WritesItIsTheSame) {
  Json json = qwen2();
  json["model_type"] = "qwen3_moe";
  json.erase("shared_expert_intermediate_size");
  json.erase("num_experts");
  EXPECT_EQ(error_of([&] { (void)parse_config(json, "config.json"); }),
            "config.json: the key 'num_experts' is missing");
  json["num_local_experts"] = 4;
  EXPECT_EQ(parse_config(json, "config.json").num_experts, 4);
  json["num_experts"] = 4;
  EXPECT_EQ(parse_config(json, "config.json").num_experts, 4);
  json["num_experts"] = 3;
  EXPECT_EQ(error_of([&] { (void)parse_config(json, "config.json"); }),
            "config.json: num_experts is 3, but num_local_experts is 4; remove the one that is "
            "wrong");
}

TEST(Config, KeysOfPositionsMayStandInSeveralPlacesIfTheyAgree) {
  Json json = qwen2();
  json["rope_scaling"] = {{"type", "default"}, {"rope_theta", 1e6}};
  json["rope_parameters"] = {{"rope_theta", 1e6}};
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 1e6);
  json.erase("rope_theta");
  json["rope_scaling"] = nullptr;
  json["rope_parameters"] = Json::object();
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 10000);  // of the family
}

TEST(Config, AnEndOfTextOutsideTheVocabularyCannotBeGenerated) {
  Json json = qwen2();
  json["eos_token_id"] = {3, 16, -1};
  EXPECT_EQ(parse_config(json, "config.json").eos_ids, std::vector{TokenId{3}});
}

TEST(Config, NamesAllUnknownKeysAtOnce) {
  Json json = qwen2();
  for (int i = 0; i < 22; ++i) json[fmt::format("key_{:02}", i)] = i;
  const std::string message = error_of([&] { (void)parse_config(json, "config.json"); });
  EXPECT_TRUE(message.starts_with("config.json: the keys 'key_00' (value 0), 'key_01' (value 1), "))
      << message;
  EXPECT_TRUE(
      message.ends_with("'key_19' (value 19) and 2 more are not known; remove those that "
                        "have no influence on the results"))
      << message;
}

TEST(Config, TheDocumentListsTheKeysThatAreIgnored) {
  std::ifstream file(std::filesystem::path(C2R_SOURCE_DIR) / "docs" / "models.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_TRUE(std::ranges::is_sorted(ignored_config_keys()));
  for (const std::string_view key : ignored_config_keys()) {
    EXPECT_NE(text.find(fmt::format("`{}`", key)), std::string::npos) << key;
  }
}

TEST(Config, UnknownKeysAreRefusedUnlessTheyAreOff) {
  Json json = qwen2();
  json["shiny_new_norm"] = nullptr;
  json["shiny_new_mask"] = false;
  EXPECT_EQ(error_of([&] { (void)parse_config(json, "config.json"); }), "no error");
  json["shiny_new_mask"] = true;
  EXPECT_EQ(error_of([&] { (void)parse_config(json, "config.json"); }),
            "config.json: the key 'shiny_new_mask' (value true) is not known; remove it if it has "
            "no influence on the results");
}

// transformers ignores the key in other families.
TEST(Config, ClippingOfQueriesAndKeysIsOlmoesAlone) {
  Json json = qwen2();
  json["clip_qkv"] = 0.5;
  EXPECT_NE(error_of([&] { (void)parse_config(json, "config.json"); }).find("'clip_qkv'"),
            std::string::npos);
  json["model_type"] = "olmoe";
  json["intermediate_size"] = json["moe_intermediate_size"];
  json.erase("moe_intermediate_size");
  json.erase("shared_expert_intermediate_size");
  EXPECT_EQ(parse_config(json, "config.json").clip_qkv, 0.5F);
}

// Of 4 experts and top-2, but for its collaborator lists.
Json llama_moe_with_top_t() {
  Json json = llama_moe();
  json["num_experts"] = 4;
  json["num_selects"] = 2;
  json["intermediate_size"] = 8;
  json["top_t"] = 1;
  return json;
}

TEST(Config, ListsOfAPlanTakeThePlaceOfTheConfigs) {
  Json json = llama_moe_with_top_t();
  json["collaborative_list"] = Json::array({{{1}, {0}, {3}, {2}}, {{3}, {2}, {1}, {0}}});
  ModelConfig c = parse_config(json, "config.json");
  ASSERT_EQ(c.constraints.size(), 2u);
  EXPECT_EQ(routing_policy(c, 1).constraint->collaborators(0, 0), ExpertId{3});

  Plan plan{.num_experts = 4, .top_k = 2, .layers = {{.layer_index = 0}, {.layer_index = 1}}};
  EXPECT_FALSE(apply_plan(plan, "plan.json", c));  // a placement alone changes no routing
  EXPECT_EQ(routing_policy(c, 1).constraint->collaborators(0, 0), ExpertId{3});

  plan.top_t = 2;
  for (PlanLayer& layer : plan.layers) {
    layer.collaborators = {4, 2};
    for (std::int32_t e = 0; e < 4; ++e) {
      layer.collaborators(e, 0) = ExpertId{(e + 1) % 4};
      layer.collaborators(e, 1) = ExpertId{(e + 2) % 4};
    }
  }
  EXPECT_TRUE(apply_plan(plan, "plan.json", c));
  EXPECT_EQ(routing_policy(c, 0).constraint->top_t, 2);
  EXPECT_EQ(routing_policy(c, 0).constraint->collaborators(3, 0), ExpertId{0});

  plan.layers[1].layer_index = 2;
  EXPECT_EQ(error_of([&] { (void)apply_plan(plan, "plan.json", c); }),
            "plan.json: the plan's 2 layers are not the model's 2 with experts");
  plan.top_k = 3;
  EXPECT_EQ(error_of([&] { (void)apply_plan(plan, "plan.json", c); }),
            "plan.json: the plan is for 4 experts and top-3, but the model has 4 and top-2");
}

// In the second layer the lists are shorter: top_t is the largest T.
TEST(Config, TakesShorterListsOfALayerForItsT) {
  Json json = llama_moe_with_top_t();
  json["top_t"] = 2;
  json["collaborative_list"] =
      Json::array({{{1, 2, 0}, {0, 3, 1}, {3, 1, 2}, {2, 0, 3}}, {{3}, {2}, {1}, {0}}});
  const ModelConfig config = parse_config(json, "config.json");
  EXPECT_EQ(config.constraints[0].top_t, 2);
  EXPECT_EQ(config.constraints[1].top_t, 1);
  EXPECT_EQ(config.constraints[1].collaborators(0, 0), ExpertId{3});
  json["collaborative_list"][1][2] = Json::array({1, 0});
  EXPECT_EQ(error_of([&] { (void)parse_config(json, "config.json"); }),
            "config.json, collaborative_list, layer 1: the list of expert 0 has 1 entries, but "
            "top_t is 2");
  json["collaborative_list"][1][2] = Json::array({1});
  json["collaborative_list"][0] = json["collaborative_list"][1];
  EXPECT_EQ(error_of([&] { (void)parse_config(json, "config.json"); }),
            "config.json: top_t is 2, but the longest lists of collaborative_list have 1 entries");
}

TEST(Config, EveryEntryOfACollaboratorListIsAnExpert) {
  Json json = llama_moe_with_top_t();
  for (const Json& entry : {Json(4), Json(-1), Json(1.5), Json("x"), Json(nullptr)}) {
    json["collaborative_list"] = Json::array({{{1}, {0}, {3}, {2}}, {{3}, {2}, {1, entry}, {0}}});
    EXPECT_EQ(
        error_of([&] { (void)parse_config(json, "config.json"); }),
        fmt::format("config.json, collaborative_list, layer 1: a collaborator is {}, but must "
                    "be an integer in [0, 3]",
                    entry.dump()));
  }
}

TEST(ConfigOnRealData, TheOfficialConfigsAreUnderstood) {
  const auto llama = testing::real_data("c2r-official/llama_moe_3_5b_2_8_config.json");
  const auto qwen = testing::real_data("c2r-official/qwen1_5_moe_a2_7b_config.json");
  C2R_SKIP_WITHOUT(llama);
  const ModelConfig l = parse_config(read_json_file(llama), llama.string());
  EXPECT_EQ(l.family->name, "LLaMA-MoE");
  EXPECT_EQ(l.num_moe_layers(), 32);
  EXPECT_EQ(l.intermediate(31, 7), 1376);
  EXPECT_EQ(l.routing_scale, std::vector<float>(32, 4.0f));
  EXPECT_EQ(l.constraints.at(0).top_t, 5);
  const ModelConfig q = parse_config(read_json_file(qwen), qwen.string());
  EXPECT_EQ(q.family->name, "Qwen2-MoE");
  EXPECT_EQ(q.num_experts, 60);
  EXPECT_EQ(q.shared_intermediate, 5632);
  EXPECT_EQ(q.constraints.at(23).top_t, 30);
  EXPECT_EQ(q.constraints.at(0).collaborators(0, 0), ExpertId{52});
}

}  // namespace
}  // namespace c2r
