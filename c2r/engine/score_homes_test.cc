// Scores at homes by signature: they are those of one process, and the ranks send what a simulation
// of the same homes counts.
#include <gtest/gtest.h>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/engine/profile.h"
#include "c2r/engine/ranks/run_traffic.h"
#include "c2r/engine/score.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/homes/assign_homes.h"
#include "c2r/plan/homes/token_homes.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

constexpr EngineOptions kSmallPasses{
    .arithmetic = Arithmetic::kF32, .num_threads = 1, .max_pass_tokens = 5};

struct HomesCase {
  Cluster cluster;
  CopyMode mode = CopyMode::kPerRank;
  std::int64_t num_prefix_tokens = 4;
  bool is_by_ids = false;
};

class ScoreHomes : public ::testing::TestWithParam<HomesCase> {
 protected:
  ScoreHomes()
      : model_(std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" /
               "qwen2_moe") {
    std::mt19937_64 rng(3);
    const ModelConfig& config = model_.config();
    const std::int32_t ep_size = GetParam().cluster.ep_size();
    how_.dispatch = {.traffic = {.cluster = GetParam().cluster, .copy_mode = GetParam().mode},
                     .row_type = ElementType::kF32};
    how_.num_chunks = 1;
    for (std::int64_t layer = 0; layer < config.num_moe_layers(); ++layer) {
      how_.placements.push_back(testing::random_placement(config.num_experts, ep_size, 2, rng));
    }
    signature_ = {.layer_index = config.moe_layers.back(),
                  .num_tokens = GetParam().num_prefix_tokens,
                  .weights = {ep_size, config.num_experts}};
    for (double& weight : signature_.weights.all()) weight = double(uniform_below(100, rng));
    if (GetParam().is_by_ids) signature_.token_weights = random_token_weights(rng);
    // More than one window, requests without scored tokens, and prefixes longer than a sequence.
    for (std::int64_t r = 0; r < kSequencesPerRank * ep_size + 7; ++r) {
      ScoreRequest& request = requests_.emplace_back();
      const auto length = std::int64_t(1 + uniform_below(12, rng));
      for (std::int64_t t = 0; t < length; ++t) {
        request.tokens.push_back(
            TokenId{std::int32_t(uniform_below(std::uint64_t(config.vocab_size), rng))});
      }
      request.first_scored = (length + 1) / 2;
    }
  }

  // Of every second id.
  TokenWeights random_token_weights(std::mt19937_64& rng) const {
    const std::int32_t ep_size = GetParam().cluster.ep_size();
    const std::int32_t num_ids = static_cast<std::int32_t>(model_.config().vocab_size) / 2;
    TokenWeights weights{.ids = {},
                         .weights = {num_ids, ep_size},
                         .of_others = std::vector<double>(std::size_t(ep_size), 50)};
    for (std::int32_t k = 0; k < num_ids; ++k) weights.ids.push_back(TokenId{2 * k});
    for (double& weight : weights.weights.all()) weight = double(uniform_below(100, rng));
    return weights;
  }

  std::function<std::optional<ScoreRequest>()> one_by_one() const {
    return [this, next = std::size_t{0}]() mutable {
      return next < requests_.size() ? std::optional(requests_[next++]) : std::nullopt;
    };
  }

  Model model_;
  ExpertParallelOptions how_;
  HomeSignature signature_;
  std::vector<ScoreRequest> requests_;
};

struct AllScores {
  std::vector<Score> scores;
  std::vector<double> log_likelihoods;

  bool operator==(const AllScores&) const = default;
};

AllScores all_scores_of(Engine& engine, const NextScoreRequest& next) {
  AllScores all;
  NoProgress progress;
  (void)score_all(
      engine, next,
      [&](const Score& score, std::span<const double> log_likelihoods) {
        all.scores.push_back(score);
        all.log_likelihoods.insert(all.log_likelihoods.end(), log_likelihoods.begin(),
                                   log_likelihoods.end());
      },
      progress);
  return all;
}

// The tokens that run: all but the last of each request with scored tokens.
Trace trace_of_runs(const Model& model, std::span<const ScoreRequest> requests) {
  const auto path = testing::temporary_path("runs");
  Engine engine(model, kSmallPasses);
  NoProgress progress;
  (void)profile(
      engine,
      [&, next = std::size_t{0}]() mutable -> std::optional<std::vector<TokenId>> {
        while (next < requests.size() && !requests[next].has_scored_tokens()) ++next;
        if (next == requests.size()) return std::nullopt;
        const auto& tokens = requests[next++].tokens;
        return std::vector<TokenId>(tokens.begin(), tokens.end() - 1);
      },
      {.output = path, .window = 16, .records_token_ids = true}, progress);
  return Trace(path);
}

Matrix<std::int64_t> row_bytes_of_homes(const Trace& trace, const HomeSignature& signature,
                                        const ExpertParallelOptions& how, std::int64_t hidden) {
  const RoutedTokens tokens = routed_tokens_of(trace, SequencePart::kAll);
  const auto homes = followed_homes(signature, tokens, 0);
  NoProgress progress;
  const std::int32_t ep_size = how.dispatch.traffic.cluster.ep_size();
  Matrix<std::int64_t> bytes(ep_size, ep_size);
  for (const Reach& reach :
       count_reach_of_homes(tokens, homes, how.placements, how.dispatch.traffic, 1, progress)) {
    const Volume volume = volume_of(reach, how.dispatch.traffic);
    for (std::int64_t src = 0; src < ep_size; ++src) {
      for (std::int64_t dst = 0; dst < ep_size; ++dst) {
        if (src == dst) continue;
        bytes(src, dst) += (volume.link_copies(src, dst) + volume.link_copies(dst, src)) * hidden *
                           std::int64_t{sizeof(float)};
      }
    }
  }
  return bytes;
}

TEST_P(ScoreHomes, AreThoseOfOneProcessAndSendWhatASimulationCounts) {
  Engine alone(model_, kSmallPasses);
  const AllScores expected = all_scores_of(alone, one_by_one());
  ASSERT_EQ(expected.scores.size(), requests_.size());
  AllScores got;
  RunTraffic traffic;
  run_in_process(GetParam().cluster.ep_size(), [&](Transport& transport) {
    Engine engine(model_, kSmallPasses, transport, how_);
    engine.follow_homes(signature_);
    RunMeter meter(engine, GetParam().cluster);
    AllScores mine = all_scores_of(engine, one_by_one());
    const RunTraffic of_run = meter.finish();
    if (!engine.is_first_rank()) return;
    got = std::move(mine);
    traffic = of_run;
  });
  // Rows from several copies are added in another order; one copy for each expert keeps the bits.
  if (GetParam().mode == CopyMode::kPerExpert) {
    EXPECT_EQ(got, expected);
  } else {
    ASSERT_EQ(got.scores.size(), expected.scores.size());
    for (std::size_t r = 0; r < got.scores.size(); ++r) {
      EXPECT_EQ(got.scores[r].num_tokens, expected.scores[r].num_tokens);
      EXPECT_NEAR(got.scores[r].log_likelihood, expected.scores[r].log_likelihood, 1e-3);
    }
  }
  const Trace trace = trace_of_runs(model_, requests_);
  EXPECT_EQ(traffic.num_tokens, trace.num_tokens());
  EXPECT_EQ(traffic.row_bytes, row_bytes_of_homes(trace, signature_, how_, model_.config().hidden));
}

INSTANTIATE_TEST_SUITE_P(
    InProcess, ScoreHomes,
    ::testing::Values(HomesCase{{.ranks_per_node = 3}, CopyMode::kPerExpert, 4},
                      HomesCase{{.ranks_per_node = 2}, CopyMode::kPerRank, 1},
                      HomesCase{{.num_nodes = 2, .ranks_per_node = 2}, CopyMode::kPerNode, 3},
                      HomesCase{{.ranks_per_node = 2}, CopyMode::kPerExpert, 100},
                      HomesCase{{.ranks_per_node = 3}, CopyMode::kPerExpert, 4, true},
                      HomesCase{
                          {.num_nodes = 2, .ranks_per_node = 2}, CopyMode::kPerNode, 4, true}));

TEST(FollowHomes, RefusesTheSignatureOfAnotherModel) {
  const Model model(std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" /
                    "qwen2_moe");
  Engine engine(model, kSmallPasses);
  EXPECT_EQ(testing::error_of([&] {
              engine.follow_homes({.layer_index = 99, .num_tokens = 1, .weights = {1, 3}});
            }),
            "the signature is of layer 99 with 3 experts, for 1 ranks, which the model on 1 ranks "
            "does not have");
  const ModelConfig& config = model.config();
  EXPECT_EQ(testing::error_of([&] {
              engine.follow_homes({.layer_index = config.moe_layers[0],
                                   .num_tokens = 1,
                                   .weights = {1, config.num_experts},
                                   .token_weights = TokenWeights{.of_others = {0, 0}}});
            }),
            "the signature has token weights for 2 ranks, but there are 1");
}

}  // namespace
}  // namespace c2r
