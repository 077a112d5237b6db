// Tests of the memory that ranks are predicted to need, and of the refusal where it is too
// little.
#include "c2r/engine/memory.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/engine/score.h"
#include "c2r/io/memory.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

constexpr std::int64_t kHidden = 256, kIntermediate = 2048, kNumExperts = 8, kVocab = 64;
constexpr std::int64_t kExpertBytes = 3 * kHidden * kIntermediate * 2;
// The kernel maps up to so much around a page that is touched, and pages are whole.
constexpr std::int64_t kAround = 64 << 10;

// A Mixtral of one layer whose experts are large: 3 MiB each, bf16.
std::filesystem::path large_model() {
  const auto config =
      testing::text_file("config.json", fmt::format(R"({{
    "model_type": "mixtral", "hidden_size": {}, "vocab_size": {}, "num_hidden_layers": 1,
    "num_attention_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "num_local_experts": {}, "num_experts_per_tok": 2,
    "intermediate_size": {}, "hidden_act": "silu"}})",
                                                    kHidden, kVocab, kNumExperts, kIntermediate));
  const std::string layer = "model.layers.0.", moe = layer + "block_sparse_moe.";
  std::map<std::string, std::vector<std::int64_t>> shapes{
      {"model.embed_tokens.weight", {kVocab, kHidden}},
      {"lm_head.weight", {kVocab, kHidden}},
      {"model.norm.weight", {kHidden}},
      {layer + "input_layernorm.weight", {kHidden}},
      {layer + "post_attention_layernorm.weight", {kHidden}},
      {moe + "gate.weight", {kNumExperts, kHidden}}};
  for (const char* name : {"q", "k", "v", "o"}) {
    shapes[fmt::format("{}self_attn.{}_proj.weight", layer, name)] = {kHidden, kHidden};
  }
  for (std::int64_t e = 0; e < kNumExperts; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", moe, e);
    shapes[expert + "w1.weight"] = shapes[expert + "w3.weight"] = {kIntermediate, kHidden};
    shapes[expert + "w2.weight"] = {kHidden, kIntermediate};
  }
  std::mt19937_64 rng(1);
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, shape] : shapes) {
    const auto size =
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies{});
    tensors.push_back({name, Dtype::kBf16, shape, [size, &rng](AtomicFile& file) {
                         std::vector<Bf16> values;
                         for (std::int64_t i = 0; i < size; ++i) {
                           values.push_back(to_bf16(static_cast<float>(rng() % 65) / 64 - 0.5F));
                         }
                         file.write(std::as_bytes(std::span(values)));
                       }});
  }
  write_safetensors(config.parent_path() / "model.safetensors", std::move(tensors), {});
  return config.parent_path();
}

// The pages of `weight` but those that its neighbours may have brought in.
std::int64_t inner_resident_bytes(const RowsView& weight) {
  return resident_bytes({weight.data() + kAround, std::size_t(weight.num_bytes() - 2 * kAround)})
      .value();
}

TEST(RankMemory, HoldsTheWeightsOfItsOwnSlotsOnly) {
  const auto folder = large_model();
  std::mt19937_64 rng(3);
  const ExpertParallelOptions options{
      .placements = {testing::random_placement(kNumExperts, 4, 1, rng)},
      .dispatch = {.traffic = {.cluster = {1, 4}}}};
  const Placement& placement = options.placements[0];
  std::mutex mutex;  // EXPECT_ is not for several threads everywhere
  run_in_process(4, [&](Transport& transport) {
    const Model model(folder);  // a mapping of its own, as a process has
    Engine engine(model, {.num_threads = 1}, transport, options);
    const ScoreRequest all{.tokens = std::vector<TokenId>(63, TokenId{5})};
    int num_left = 8;
    NoProgress progress;
    (void)score_all(
        engine,
        [&]() -> std::optional<ScoreRequest> {
          ScoreRequest request = all;
          for (TokenId& token : request.tokens) token = TokenId{std::int32_t(rng() % kVocab)};
          return num_left-- > 0 ? std::optional(request) : std::nullopt;
        },
        {}, progress);
    const auto memory = gather_memory(transport, model);
    const std::lock_guard lock(mutex);
    const MoeWeights& moe = *model.weights().layers[0].moe;
    const auto slots = placement.slots.row(std::int64_t(index(transport.rank())));
    std::int64_t num_touched = 0;
    for (std::int32_t e = 0; e < kNumExperts; ++e) {
      const ExpertWeights& expert = moe.experts[std::size_t(e)];
      const bool is_here = std::ranges::count(slots, ExpertId{e}) > 0;
      for (const RowsView& weight : {expert.gate, expert.up, expert.down}) {
        const bool is_touched = inner_resident_bytes(weight) > 0;
        EXPECT_TRUE(is_here || !is_touched) << "expert " << e;
        num_touched += is_touched ? 1 : 0;
      }
    }
    EXPECT_GT(num_touched, 0);
    for (std::size_t rank = 0; rank < memory.size(); ++rank) {
      const RankId one{std::int32_t(rank)};
      EXPECT_LE(memory[rank].weight_bytes.value(),
                weight_bytes(model, options.placements, {&one, 1}) + 3 * kNumExperts * 2 * kAround);
      EXPECT_GT(memory[rank].weight_bytes.value(), kExpertBytes);
      EXPECT_GT(memory[rank].resident_bytes.value(), memory[rank].weight_bytes.value());
    }
  });
}

TEST(RankMemory, IsCheckedForTheRanksOfAMachineTogether) {
  const Model model(large_model());
  const auto placement = testing::make_placement(8, {{0, 1, 2, 3}, {3, 4, 5, 6}, {7, 0, 1, 2}});
  const std::vector<Placement> placements{placement};
  const std::int64_t others = model.checkpoint().num_bytes() - kNumExperts * kExpertBytes;
  const std::vector<RankId> one{RankId{1}}, two{RankId{0}, RankId{1}},
      all{RankId{0}, RankId{1}, RankId{2}};
  EXPECT_EQ(weight_bytes(model, placements, one), others + 4 * kExpertBytes);
  EXPECT_EQ(weight_bytes(model, placements, two), others + 7 * kExpertBytes);
  EXPECT_EQ(weight_bytes(model, placements, all), model.checkpoint().num_bytes());
  check_memory(model, placements, two, others + 7 * kExpertBytes);
  EXPECT_EQ(testing::error_of([&] { check_memory(model, placements, two, 20'000'000); }),
            "the machine of ranks 0, 1 has 20.00 MB of memory available, but its weights are "
            "22.62 MB; spread the ranks over more machines");
  EXPECT_EQ(testing::error_of([&] { check_memory(model, placements, one, 1'500'000); }),
            "the machine of rank 1 has 1.50 MB of memory available, but its weights are 13.18 MB; "
            "spread the ranks over more machines");
}

TEST(RankMemory, RefusesPlacementsOfAnotherModel) {
  const Model model(large_model());
  const std::vector<RankId> ranks{RankId{0}, RankId{1}};
  const auto error = [&](const std::vector<Placement>& placements) {
    return testing::error_of([&] { (void)weight_bytes(model, placements, ranks); });
  };
  EXPECT_EQ(error({}), "there are 0 placements, but the model has 1 MoE layers");
  EXPECT_EQ(error({testing::make_placement(4, {{0, 1}, {2, 3}})}),
            "a placement is for 4 experts, but the model has 8");
  EXPECT_EQ(error({testing::make_placement(8, {{0, 1, 2, 3, 4, 5, 6, 7}})}),
            "rank 1 is not one of the placement's 1");
  auto placement = testing::make_placement(8, {{0, 1, 2, 3}, {4, 5, 6, 7}});
  placement.slots(1, 3) = ExpertId{8};
  EXPECT_EQ(error({placement}), "a slot names expert 8, but the model has 8");
}

TEST(RankMemory, KnowsWhichRanksShareAMachine) {
  run_in_process(3, [](Transport& transport) {
    EXPECT_EQ(ranks_of_this_machine(transport),
              (std::vector<RankId>{RankId{0}, RankId{1}, RankId{2}}));
  });
}

}  // namespace
}  // namespace c2r
