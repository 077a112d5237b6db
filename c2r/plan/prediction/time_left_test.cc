// Tests that counts end when the time is over, and that a plan is made without them.
#include "c2r/plan/prediction/time_left.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/make_plan.h"

namespace c2r {
namespace {

using std::chrono::seconds;

TEST(TimeLeft, EndsAfterTheSecondsAndWhenTheUserStops) {
  NoProgress shown;
  const auto now = LimitedProgress::Clock::now();
  std::atomic<bool> stop = false;
  EXPECT_FALSE(LimitedProgress(shown, now, std::nullopt, nullptr).is_stopped());
  EXPECT_FALSE(LimitedProgress(shown, now - seconds(100), 200, &stop).is_stopped());
  EXPECT_FALSE(LimitedProgress(shown, now - seconds(100), 50, &stop).is_stopped()) << "grace";
  // A search that used up its time leaves one second more.
  const LimitedProgress late(shown, now - seconds(100), 50, &stop);
  ASSERT_TRUE(late.deadline());
  EXPECT_LE(*late.deadline(), LimitedProgress::Clock::now() + seconds(1));
  const LimitedProgress asked(shown, now, std::nullopt, &stop);
  stop = true;
  EXPECT_TRUE(asked.is_stopped());
  EXPECT_FALSE(LimitedProgress(shown, now, std::nullopt, &stop).is_stopped())
      << "the search was stopped, and there is time to count";
}

TEST(TimeLeft, NamesThePartsThatWereNotDone) {
  NoProgress shown;
  std::atomic<bool> stop = false;
  LimitedProgress limited(shown, LimitedProgress::Clock::now(), std::nullopt, &stop);
  TimeLeft left(limited);
  int num_done = 0;
  left.run("first", [&] { ++num_done; });
  left.run("second", [&] {
    stop = true;
    limited.throw_if_stopped();
    ++num_done;
  });
  left.run("third", [&] { ++num_done; });
  EXPECT_EQ(num_done, 1);
  EXPECT_EQ(left.left_out(), (std::vector<std::string>{"second", "third"}));
  EXPECT_EQ(testing::error_of([&] {
              TimeLeft(limited).run("broken", [] {});
              stop = false;
              TimeLeft(limited).run("broken", [] { C2R_THROW(kInvalidFile, "no token"); });
            }),
            "no token");
}

// Stops when the predictions begin, as a user would who sees that they take long.
class StopAtPredictions final : public Progress {
 public:
  void begin(std::string_view step) override { stop = stop || step == "predicting"; }
  void update(std::int64_t, std::int64_t) override {}
  std::atomic<bool> stop = false;
};

TEST(MakePlan, LeavesOutWhatIsStoppedAndStillGivesThePlan) {
  std::mt19937_64 rng(1);
  Matrix<ExpertId> choices(500, 2);
  for (std::int64_t t = 0; t < choices.rows(); ++t) {
    std::ranges::copy(testing::random_choices(8, 2, rng), choices.row(t).begin());
  }
  const MatrixView<const ExpertId> view = choices;
  const Trace trace({.num_experts = 8, .top_k = 2, .layer_indices = {0}}, std::span(&view, 1));
  const PlanRequest request{.cluster = {.ranks_per_node = 4}, .effort = 0.1};
  StopAtPredictions progress;
  const MadePlan made = make_plan(trace, request, SequencePart::kAll,
                                  {.progress = &progress, .stop = &progress.stop});
  EXPECT_TRUE(made.plan.predictions.empty());
  EXPECT_FALSE(made.check);
  EXPECT_EQ(placements_of(made.plan), placements_of(make_plan(trace, request).plan));
  EXPECT_EQ(made.plan.provenance.ended_by, "work");
  EXPECT_EQ(parse_plan(plan_to_text(made.plan), "test"), made.plan);
  EXPECT_EQ(left_out_text(made),
            "not counted, because the time was over or the plan was to end: the predictions; c2r "
            "simulate counts it later");
  EXPECT_EQ(left_out_text(make_plan(trace, request)), "");
}

}  // namespace
}  // namespace c2r
