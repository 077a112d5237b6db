// Engines on several ranks give what one process gives.
#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/engine/generate.h"
#include "c2r/engine/memory.h"
#include "c2r/engine/profile.h"
#include "c2r/engine/ranks/run_traffic.h"
#include "c2r/engine/score.h"
#include "c2r/io/json.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using Tokens = std::vector<TokenId>;

class Ranks : public ::testing::TestWithParam<Cluster> {
 protected:
  static std::filesystem::path folder(const std::string& family) {
    return std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / family;
  }

  // Random placements with replicas.
  static ExpertParallelOptions options(const ModelConfig& config, CopyMode mode,
                                       ElementType row_type, std::uint64_t seed) {
    std::mt19937_64 rng(seed);
    ExpertParallelOptions options{
        .dispatch = {.traffic = {.cluster = GetParam(), .copy_mode = mode}, .row_type = row_type},
        .num_chunks = std::int32_t(1 + seed % 3)};
    if (seed % 4 == 3) options.num_chunks.reset();  // as the engine chooses
    for (std::int64_t layer = 0; layer < config.num_moe_layers(); ++layer) {
      options.placements.push_back(
          testing::random_placement(config.num_experts, GetParam().ep_size(), 2, rng));
    }
    return options;
  }

  // Runs `body` on every rank with an engine of its own.
  static void run(const Model& model, const ExpertParallelOptions& options,
                  const std::function<void(Engine&)>& body) {
    run_in_process(GetParam().ep_size(), [&](Transport& transport) {
      Engine engine(model, kEngine, transport, options);
      body(engine);
    });
  }

  // Small passes, so that sequences take different numbers of passes.
  static constexpr EngineOptions kEngine{
      .arithmetic = Arithmetic::kF32, .num_threads = 1, .max_pass_tokens = 5};
};

// Sequences of 1 to 37 tokens; 7 of them, so that no number of ranks divides them.
std::vector<Tokens> some_sequences(const ModelConfig& config) {
  std::mt19937_64 rng(7);
  std::vector<Tokens> sequences;
  for (const std::size_t length : {11u, 1u, 37u, 5u, 20u, 6u, 3u}) {
    Tokens& tokens = sequences.emplace_back();
    for (std::size_t t = 0; t < length; ++t) {
      tokens.push_back(
          TokenId{std::int32_t(uniform_below(static_cast<std::uint64_t>(config.vocab_size), rng))});
    }
  }
  return sequences;
}

template <class T>
std::function<std::optional<T>()> one_by_one(const std::vector<T>& values) {
  return [&values, next = std::size_t{0}]() mutable {
    return next < values.size() ? std::optional(values[next++]) : std::nullopt;
  };
}

// Work is asked for on rank 0 only.
template <class T>
std::function<std::optional<T>()> on_first_rank(const Engine& engine,
                                                const std::vector<T>& values) {
  if (engine.is_first_rank()) return one_by_one(values);
  return []() -> std::optional<T> {
    ADD_FAILURE() << "another rank was asked for work";
    return std::nullopt;
  };
}

std::vector<Score> scores_of_one_process(Engine& engine,
                                         const std::vector<ScoreRequest>& requests) {
  std::vector<Score> scores;
  NoProgress progress;
  (void)score_all(
      engine, one_by_one(requests),
      [&](const Score& score, std::span<const double>) { scores.push_back(score); }, progress);
  return scores;
}

TEST_P(Ranks, WriteTheTraceOfOneProcessByteForByte) {
  NoProgress progress;
  for (const char* family : {"llama_moe", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"}) {
    const Model model(folder(family));
    const auto sequences = some_sequences(model.config());
    const ProfileRequest one{.output = testing::temporary_path("one"),
                             .window = 16,
                             .max_tokens = 79,
                             .records_token_ids = true};
    Engine engine(model, kEngine);
    (void)profile(engine, one_by_one(sequences), one, progress);
    ProfileRequest many = one;
    many.output = testing::temporary_path("many");
    run(model, options(model.config(), CopyMode::kPerExpert, ElementType::kF32, 1), [&](Engine& e) {
      NoProgress silent;
      const auto result = profile(e, on_first_rank(e, sequences), many, silent);
      EXPECT_EQ(result.num_tokens, e.is_first_rank() ? 79 : 0);
    });
    EXPECT_EQ(read_file(many.output), read_file(one.output)) << family;
  }
}

TEST_P(Ranks, ScoreAsOneProcessInTheOrderOfRequests) {
  const Model model(folder("qwen2_moe"));
  std::vector<ScoreRequest> requests;
  for (const Tokens& tokens : some_sequences(model.config())) {
    requests.push_back({tokens, (std::ssize(tokens) + 1) / 2});
  }
  std::vector<Score> expected;
  std::vector<double> expected_of_tokens;
  Engine engine(model, kEngine);
  NoProgress progress;
  (void)score_all(
      engine, one_by_one(requests),
      [&](const Score& score, std::span<const double> log_likelihoods) {
        expected.push_back(score);
        expected_of_tokens.insert(expected_of_tokens.end(), log_likelihoods.begin(),
                                  log_likelihoods.end());
      },
      progress);
  ASSERT_EQ(expected.size(), requests.size());
  std::int64_t num_scored = 0;
  for (const Score& score : expected) num_scored += score.num_tokens;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    std::vector<Score> got;
    std::vector<double> got_of_tokens;
    run(model, options(model.config(), CopyMode::kPerExpert, ElementType::kF32, seed),
        [&](Engine& e) {
          NoProgress silent;
          const auto on_score = [&](const Score& score, std::span<const double> log_likelihoods) {
            ASSERT_TRUE(e.is_first_rank());
            got.push_back(score);
            got_of_tokens.insert(got_of_tokens.end(), log_likelihoods.begin(),
                                 log_likelihoods.end());
          };
          const Score total = score_all(e, on_first_rank(e, requests), on_score, silent);
          EXPECT_EQ(total.num_tokens, e.is_first_rank() ? num_scored : 0);
        });
    EXPECT_EQ(got, expected);
    EXPECT_EQ(got_of_tokens, expected_of_tokens);
  }
}

// Rank 0 holds half of the experts of each layer, the last rank none, and layers differ in their
// slots: what a rank has no expert for stays empty.
Placement unequal_placement(std::int32_t num_experts, std::int32_t ep_size, std::int32_t layer) {
  std::vector<std::vector<ExpertId>> ranks(static_cast<std::size_t>(ep_size));
  const std::int32_t num_others = std::max(1, ep_size - 2);
  for (std::int32_t e = 0; e < num_experts; ++e) {
    const bool is_on_first = e % 2 == 0 || ep_size < 3;
    ranks[is_on_first ? 0 : std::size_t(1 + (e / 2 + layer) % num_others)].push_back(ExpertId{e});
  }
  // A replica of expert 0 on rank 1.
  if (ep_size > 2) ranks[1].push_back(ExpertId{0});
  std::size_t num_slots = 0;
  for (const auto& experts : ranks) num_slots = std::max(num_slots, experts.size());
  Placement placement{.num_experts = num_experts,
                      .slots = {ep_size, std::int64_t(num_slots) + layer, kNoExpert}};
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    // Empty slots come first, too.
    std::ranges::copy(ranks[r], placement.slots.row(std::int64_t(r)).begin() + layer);
  }
  return placement;
}

TEST_P(Ranks, ScoreAsOneProcessIfRanksAndLayersDifferInTheirSlots) {
  for (const char* family : {"mixtral", "qwen2_moe"}) {
    const Model model(folder(family));
    std::vector<ScoreRequest> requests;
    for (const Tokens& tokens : some_sequences(model.config())) requests.push_back({tokens, 1});
    Engine engine(model, kEngine);
    const std::vector<Score> expected = scores_of_one_process(engine, requests);
    ExpertParallelOptions unequal =
        options(model.config(), CopyMode::kPerExpert, ElementType::kF32, 1);
    for (std::size_t layer = 0; layer < unequal.placements.size(); ++layer) {
      unequal.placements[layer] =
          unequal_placement(model.config().num_experts, GetParam().ep_size(), std::int32_t(layer));
    }
    for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
      SCOPED_TRACE(fmt::format("{}, {}", family, name_of(mode)));
      unequal.dispatch.traffic.copy_mode = mode;
      std::vector<Score> got;
      run(model, unequal, [&](Engine& e) {
        NoProgress silent;
        const auto on_score = [&](const Score& score, std::span<const double>) {
          got.push_back(score);
        };
        (void)score_all(e, on_first_rank(e, requests), on_score, silent);
      });
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].num_tokens, expected[i].num_tokens);
        // The order of sums is that of one process only per expert.
        const double bound = mode == CopyMode::kPerExpert ? 0 : 1e-4;
        EXPECT_NEAR(got[i].log_likelihood, expected[i].log_likelihood,
                    -bound * expected[i].log_likelihood);
      }
    }
  }
}

// What travels is rounded by 2^-9 of it, there and back, in each of at most 3 layers: some 6 x 2^-9
// of what logits are made of. These models are random, so an expert that is chosen instead of
// another changes a token's logits wholly: twice that, and some. Rows of other tokens would change
// most.
TEST_P(Ranks, ScoreNearlyAsOneProcessWithRowsOfBf16) {
  for (const char* family : {"llama_moe", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"}) {
    const Model model(folder(family));
    std::vector<ScoreRequest> requests;
    for (const Tokens& tokens : some_sequences(model.config())) {
      if (tokens.size() > 1) requests.push_back({tokens, 1});
    }
    Engine engine(model, kEngine);
    const std::vector<Score> expected = scores_of_one_process(engine, requests);
    for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
      SCOPED_TRACE(fmt::format("{}, {}", family, name_of(mode)));
      std::size_t next = 0;
      run(model, options(model.config(), mode, ElementType::kBf16, 1), [&](Engine& e) {
        NoProgress silent;
        const auto on_score = [&](const Score& score, std::span<const double>) {
          const Score& one = expected[next++];
          EXPECT_EQ(score.num_tokens, one.num_tokens);
          EXPECT_NEAR(score.log_likelihood, one.log_likelihood, -0.03 * one.log_likelihood);
        };
        (void)score_all(e, on_first_rank(e, requests), on_score, silent);
      });
      EXPECT_EQ(next, expected.size());
    }
  }
}

// Sums in another order change logits by far less than the greedy choices of these models differ;
// expected.json has the text of another implementation.
TEST_P(Ranks, GenerateTheGreedyTextInEveryMode) {
  for (const char* family : {"llama_moe", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"}) {
    const Model model(folder(family));
    const Json expected = read_json_file(folder(family) / "expected.json").at("plain");
    const auto prompt = expected.at("prompt").get<Tokens>();
    const auto greedy = expected.at("greedy").get<Tokens>();
    std::uint64_t seed = 0;
    for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
      SCOPED_TRACE(fmt::format("{}, {}", family, name_of(mode)));
      run(model, options(model.config(), mode, ElementType::kF32, seed++), [&](Engine& e) {
        Tokens seen;
        const Tokens text = generate(e, {.prompt = prompt, .max_new_tokens = 64},
                                     [&](TokenId token) { seen.push_back(token); });
        EXPECT_EQ(text, e.is_first_rank() ? greedy : Tokens{});
        EXPECT_EQ(seen, text);
      });
    }
  }
}

TEST_P(Ranks, GenerateManyTextsTogether) {
  const Model model(folder("qwen2_moe"));
  const auto sequences = some_sequences(model.config());
  std::vector<GenerateRequest> requests;
  for (const Tokens& prompt : sequences) {
    if (!prompt.empty()) requests.push_back({.prompt = prompt, .max_new_tokens = 6});
  }
  Engine engine(model, kEngine);
  const auto expected = generate_all(engine, requests, 3);
  run(model, options(model.config(), CopyMode::kPerExpert, ElementType::kF32, 1), [&](Engine& e) {
    const auto texts = generate_all(e, requests, 3);
    if (e.is_first_rank()) {
      EXPECT_EQ(texts, expected);
    } else {
      EXPECT_TRUE(texts.empty());
    }
  });
}

// The bytes between each two ranks that the copies of all layers take, if rows have f32.
Matrix<std::int64_t> predicted_row_bytes(const Trace& trace, const ExpertParallelOptions& how) {
  TrafficModel traffic = how.dispatch.traffic;
  traffic.homes = Homes::kSequences;
  const std::int32_t ep_size = traffic.cluster.ep_size();
  const std::vector<TokenRange> all{{0, trace.num_tokens()}};
  const auto homes = homes_of_sequences(trace.sequence_starts(), trace.num_tokens(), ep_size, all);
  Matrix<std::int64_t> bytes(ep_size, ep_size);
  for (std::int64_t layer = 0; layer < trace.header().num_layers(); ++layer) {
    ReachCounter counter(how.placements[static_cast<std::size_t>(layer)], traffic);
    counter.add(trace.topk_idx(layer, 0, trace.num_tokens()), homes);
    const Volume volume = volume_of(counter.finish(), traffic);
    for (std::int64_t src = 0; src < ep_size; ++src) {
      for (std::int64_t dst = 0; dst < ep_size; ++dst) {
        if (src == dst) continue;
        bytes(src, dst) += volume.link_copies(src, dst) + volume.link_copies(dst, src);
      }
    }
  }
  return bytes;
}

TEST_P(Ranks, SendTheRowsThatTheirTraceCountsOnEachLink) {
  const Model model(folder("qwen2_moe"));
  const ModelConfig& config = model.config();
  const auto sequences = some_sequences(config);
  const ProfileRequest request{.output = testing::temporary_path("trace"), .window = 16};
  std::uint64_t seed = 0;
  for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
    SCOPED_TRACE(name_of(mode));
    const auto how = options(config, mode, ElementType::kF32, seed++);
    RunTraffic traffic;
    run(model, how, [&](Engine& e) {
      NoProgress progress;
      RunMeter meter(e, GetParam());
      (void)profile(e, on_first_rank(e, sequences), request, progress);
      const RunTraffic of_run = meter.finish();
      if (e.is_first_rank()) traffic = of_run;
      EXPECT_EQ(of_run.num_tokens, e.is_first_rank() ? 83 : 0);
    });
    Matrix<std::int64_t> expected = predicted_row_bytes(Trace(request.output), how);
    for (std::int64_t& bytes : expected.all()) bytes *= config.hidden * std::int64_t{sizeof(float)};
    EXPECT_EQ(traffic.row_bytes, expected);
    EXPECT_GT(traffic.tokens_per_s(), 0);
    for (std::size_t link = 0; link < expected.all().size(); ++link) {
      const bool is_between_ranks = link % std::size_t(GetParam().ep_size() + 1) != 0;
      const std::int64_t others = traffic.sent_bytes.all()[link] - expected.all()[link];
      EXPECT_EQ(others > 0, is_between_ranks) << link;
    }
  }
}

TEST_P(Ranks, FailTogether) {
  const Model model(folder("mixtral"));
  const std::vector<Tokens> sequences{{TokenId{1}, TokenId{2}}, {TokenId{1}, TokenId{64}}};
  const auto path = testing::path_in_empty_folder("trace");
  // The rank that gets the second sequence fails; the others wait for it.
  const std::string failing = GetParam().ep_size() == 1 ? "rank 0" : "rank 1";
  EXPECT_EQ(testing::error_of([&] {
              run(model, options(model.config(), CopyMode::kPerRank, ElementType::kF32, 1),
                  [&](Engine& e) {
                    NoProgress progress;
                    (void)profile(e, on_first_rank(e, sequences), {.output = path, .window = 8},
                                  progress);
                  });
            }),
            failing + ": token 64 is not in the vocabulary of 64");
  EXPECT_EQ(testing::num_files(path.parent_path()), 0);
}

INSTANTIATE_TEST_SUITE_P(Clusters, Ranks,
                         ::testing::Values(Cluster{1, 1}, Cluster{1, 2}, Cluster{1, 3},
                                           Cluster{2, 2}, Cluster{2, 4}),
                         testing::kClusterName);

}  // namespace
}  // namespace c2r
