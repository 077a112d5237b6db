// Sessions open what their options say, and an error on one rank is known on all.
#include "c2r/engine/session.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/engine/ranks/agreement.h"
#include "c2r/engine/score.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;

const std::filesystem::path kModel =
    std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / "qwen2_moe";

// A plan of random placements for `cluster`, with replicas, whose layers differ in their slots.
std::filesystem::path random_plan(const Cluster& cluster) {
  const Model model(kModel);
  const ModelConfig& config = model.config();
  std::mt19937_64 rng(4);
  std::vector<Placement> placements;
  while (std::ssize(placements) < config.num_moe_layers()) {
    auto next = testing::random_placement(config.num_experts, cluster.ep_size(), 2, rng);
    const bool is_equal =
        !placements.empty() && placements.back().slots_per_rank() == next.slots_per_rank();
    if (!is_equal) placements.push_back(std::move(next));
  }
  auto path = testing::temporary_path("plan.json");
  write_plan(plan_of({.num_experts = config.num_experts,
                      .top_k = config.top_k,
                      .layer_indices = config.moe_layers},
                     cluster, placements, {}),
             path);
  return path;
}

// The score of 30 tokens with what `session` has opened.
double score_in(Session& session) {
  std::vector<TokenId> tokens;
  for (std::int32_t t = 0; t < 30; ++t) tokens.push_back(TokenId{t * t % 60});
  const auto next = [&, is_asked = false]() mutable -> std::optional<ScoreRequest> {
    if (std::exchange(is_asked, true)) return std::nullopt;
    return ScoreRequest{.tokens = tokens};
  };
  NoProgress progress;
  return score_all(session.engine(), next, {}, progress).log_likelihood;
}

TEST(Session, GivesOnRanksWhatItGivesInOneProcess) {
  const SessionOptions one{.model = kModel, .arithmetic = Arithmetic::kF32, .num_threads = 1};
  Session alone(one);
  EXPECT_TRUE(alone.is_first_rank());
  EXPECT_TRUE(alone.expert_parallel().placements.empty());
  const double expected = score_in(alone);
  SessionOptions many = one;
  many.copy_mode = CopyMode::kPerExpert;  // the order of sums of one process
  for (const bool has_plan : {false, true}) {
    many.plan = has_plan ? random_plan({.num_nodes = 1, .ranks_per_node = 3}) : "";
    run_in_process(3, [&](Transport& transport) {
      Session session(many, transport);
      EXPECT_EQ(session.is_first_rank(), transport.rank() == RankId{0});
      const double score = score_in(session);
      if (session.is_first_rank()) {
        EXPECT_EQ(score, expected);
      }
    });
  }
}

TEST(Session, TakesPlacementsAndDispatchFromThePlan) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  SessionOptions options{.model = kModel, .plan = random_plan(cluster)};
  const Model model(options.model, options.plan);
  const auto planned = expert_parallel_options(options, model, 4);
  ASSERT_EQ(planned.placements.size(), model.plan()->layers.size());
  EXPECT_EQ(planned.placements[1].slots, model.plan()->layers[1].placement.slots);
  EXPECT_EQ(planned.dispatch.traffic.copy_mode,
            CopyMode::kPerNode);                             // of two nodes of several ranks
  EXPECT_EQ(planned.dispatch.row_type, ElementType::kBf16);  // as the arithmetic
  options.copy_mode = CopyMode::kPerRank;
  options.row_type = ElementType::kF32;
  options.num_chunks = 3;
  const auto asked = expert_parallel_options(options, model, 4);
  EXPECT_EQ(asked.dispatch.traffic.copy_mode, CopyMode::kPerRank);
  EXPECT_EQ(asked.dispatch.row_type, ElementType::kF32);
  EXPECT_EQ(asked.num_chunks, 3);
  EXPECT_EQ(error_of([&] { (void)expert_parallel_options(options, model, 3); }),
            options.plan.string() +
                ": the plan is for 4 ranks, but there are 3; start 4, or make a plan for 3");
}

// What each rank is told by the constructor, and that all ranks can go on together afterwards.
std::vector<std::string> errors_of_ranks(
    std::int32_t ep_size, const std::function<SessionOptions(RankId rank)>& options_of) {
  std::vector<std::string> errors(static_cast<std::size_t>(ep_size));
  run_in_process(ep_size, [&](Transport& transport) {
    errors[index(transport.rank())] = error_of([&] {
      const Session session(options_of(transport.rank()), transport,
                            [](const std::string& warning) { ADD_FAILURE() << warning; });
    });
    barrier(transport, "the end");
  });
  return errors;
}

TEST(Session, TellsAllRanksOfAnErrorOnOne) {
  const auto last_lacks_the_model = [](RankId rank) {
    SessionOptions options{.model = kModel, .num_threads = 1};
    if (rank == RankId{2}) options.model = "nowhere";
    return options;
  };
  EXPECT_EQ(errors_of_ranks(3, last_lacks_the_model),
            std::vector<std::string>(3, "'nowhere' is not a folder with a model"));
  const auto last_differs = [](RankId rank) {
    SessionOptions options{.model = kModel, .num_threads = 1};
    options.num_chunks = rank == RankId{2} ? 2 : 1;
    return options;
  };
  EXPECT_EQ(errors_of_ranks(3, last_differs),
            std::vector<std::string>(3,
                                     "rank 2 has another copy mode, row type, dtype or number of "
                                     "chunks than rank 0; give all ranks the same"));
}

TEST(Session, RefusesWeightsThatDoNotFitBeforeItReadsThem) {
  const auto little_memory = [](RankId rank) {
    SessionOptions options{.model = kModel, .num_threads = 1};
    if (rank == RankId{1}) options.available_bytes = 10'000;
    return options;
  };
  const auto errors = errors_of_ranks(2, little_memory);
  EXPECT_EQ(errors[0], errors[1]);
  EXPECT_TRUE(
      errors[0].starts_with("the machine of ranks 0, 1 has 0.01 MB of memory available, but"))
      << errors[0];
}

TEST(Session, WarnsOnTheFirstRankOnly) {
  const auto warnings_of = [](const SessionOptions& options) {
    std::vector<std::string> warnings;
    run_in_process(2, [&](Transport& transport) {
      const Session session(options, transport, [&](const std::string& warning) {
        EXPECT_EQ(transport.rank(), RankId{0});
        warnings.push_back(warning);
      });
    });
    return warnings;
  };
  SessionOptions options{.model = kModel, .num_threads = 1};
  EXPECT_EQ(warnings_of(options),
            (std::vector<std::string>{"there is no plan, so experts are placed contiguously"}));
  options.plan = random_plan({.num_nodes = 1, .ranks_per_node = 2});
  EXPECT_TRUE(warnings_of(options).empty());
}

}  // namespace
}  // namespace c2r
