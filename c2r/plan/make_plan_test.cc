// Tests of plans made from traces, token sets and arrays, and what a request may not ask.
#include "c2r/plan/make_plan.h"

#include <gtest/gtest.h>

#include <set>

#include "c2r/collaboration/collaborators.h"
#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/content_hash.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

using testing::error_of;

Matrix<ExpertId> rows_of(std::initializer_list<std::initializer_list<int>> rows) {
  Matrix<ExpertId> matrix(std::ssize(rows), std::ssize(*rows.begin()));
  auto out = matrix.all().begin();
  for (const auto& row : rows) {
    for (const int e : row) *out++ = ExpertId{e};
  }
  return matrix;
}

TraceHeader header_of(std::int32_t num_experts, std::int32_t top_k, std::int32_t num_layers) {
  TraceHeader header{.model = "m", .num_experts = num_experts, .top_k = top_k};
  for (std::int32_t layer = 0; layer < num_layers; ++layer) {
    header.layer_indices.push_back(2 * layer + 1);
  }
  return header;
}

// Choices of tokens that prefer one of `num_experts / 2` pairs; every layer differs.
struct Arrays {
  TraceHeader header;
  std::vector<Matrix<ExpertId>> layers;
  std::vector<std::int64_t> starts;

  std::vector<MatrixView<const ExpertId>> views() const { return {layers.begin(), layers.end()}; }
  Trace in_memory() const { return Trace(header, views(), starts, "arrays"); }
  Trace in_file() const {
    const auto path = testing::temporary_path("trace.safetensors");
    TraceWriter writer(path, header, false);
    for (std::int64_t t = 0; t < layers[0].rows(); ++t) {
      if (std::ranges::count(starts, t) > 0) writer.start_sequence();
      for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        writer.append(std::int64_t(layer), layers[layer].row(t), {}, "test");
      }
    }
    writer.finish();
    return Trace(path);
  }
  ModelTokenSets sets() const {
    ModelTokenSets sets{.header = header};
    for (const Matrix<ExpertId>& layer : layers) {
      TokenSetBuilder builder(header.num_experts, header.top_k);
      builder.add(layer);
      sets.layers.push_back(builder.finish());
    }
    return sets;
  }
};

Arrays random_arrays(unsigned seed) {
  std::mt19937_64 rng(seed);
  Arrays arrays{.header = header_of(8, 3, 2)};
  for (std::size_t layer = 0; layer < 2; ++layer) {
    arrays.layers.emplace_back(200, 3);
    for (std::int64_t t = 0; t < 200; ++t) {
      std::ranges::copy(testing::random_choices(8, 3, rng), arrays.layers[layer].row(t).begin());
    }
  }
  arrays.starts = {0, 31, 57, 110, 160};
  return arrays;
}

// What must not depend on where the tokens are: all but their name and hash.
Plan without_names(Plan plan) {
  for (Prediction& prediction : plan.predictions) prediction.trace.clear();
  plan.provenance.inputs.clear();
  return plan;
}

// Experts 0 and 2 choose each other, and 1 and 3: contiguous placement is as bad as can be.
TEST(MakePlan, PlacesAWorkedExample) {
  const auto ids = rows_of({{0, 2}, {1, 3}, {2, 0}, {3, 1}});
  const MatrixView<const ExpertId> layers[] = {ids};
  const Trace trace(header_of(4, 2, 1), layers);
  const MadePlan made = make_plan(trace, {.cluster = {.ranks_per_node = 2}, .top_t = 1});
  EXPECT_EQ(made.plan.layers[0].layer_index, 1);
  EXPECT_EQ(ranks_of_experts(made.plan.layers[0].placement)[0],
            ranks_of_experts(made.plan.layers[0].placement)[2]);
  EXPECT_EQ(made.plan.layers[0].collaborators, rows_of({{2}, {3}, {0}, {1}}));
  ASSERT_EQ(made.plan.predictions.size(), 3u);  // per-expert, deduplication, placement
  EXPECT_EQ(made.plan.predictions[1].copies_per_token[0], 2);
  EXPECT_EQ(made.plan.predictions[2].copies_per_token[0], 1);
  EXPECT_EQ(made.plan.predictions[2].trace, "memory, all (the fitted ones)");
  EXPECT_EQ(made.plan.provenance.inputs[0].text(), "memory, all");
  EXPECT_EQ(made.plan.provenance.ended_by, "work");
  ASSERT_TRUE(made.search);
  EXPECT_EQ(made.search->mean_value, 1);
  EXPECT_EQ(made.search->num_proved_optimal, 1);
  EXPECT_EQ(made.search->num_missed_bounds, 0);
  EXPECT_FALSE(made.search->contiguous);
}

TEST(MakePlan, GivesForArraysWhatItGivesForAFileWithTheSameTokens) {
  for (unsigned seed = 0; seed < 3; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const Arrays arrays = random_arrays(seed);
    const Trace memory = arrays.in_memory(), file = arrays.in_file();
    PlanRequest request{.cluster = {.num_nodes = 2, .ranks_per_node = 2},
                        .redundant_slots_per_rank = std::int32_t(seed % 2),
                        .seed = seed,
                        .top_t = 3,
                        .effort = 0.1};
    for (const char* const method : {"optimize", "eplb"}) {
      request.method = method;
      EXPECT_EQ(without_names(make_plan(memory, request, SequencePart::kEven).plan),
                without_names(make_plan(file, request, SequencePart::kEven).plan));
    }
    EXPECT_NE(content_hash(memory), content_hash(file));
  }
}

// The search serves token sets in another order than the prediction serves tokens.
TEST(MakePlan, JudgesBoundsByThePredictionWhereThereAreReplicas) {
  std::int64_t num_missed = 0;
  for (unsigned seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(seed);
    const Trace trace = random_arrays(seed).in_memory();
    PlanRequest request{.cluster = {.ranks_per_node = 4},
                        .redundant_slots_per_rank = 1,
                        .seed = seed,
                        .effort = 0.1};
    request.goal.max_imbalance = 1.01;
    const MadePlan made = make_plan(trace, request);
    const Prediction& printed = made.plan.predictions.back();
    std::int64_t missed = 0;
    for (std::size_t layer = 0; layer < made.search->layers.size(); ++layer) {
      const OptimizedPlacement& found = made.search->layers[layer];
      EXPECT_DOUBLE_EQ(found.imbalance, printed.imbalance[layer]);
      EXPECT_EQ(found.meets_bounds, printed.imbalance[layer] <= 1.01 * (1 + 1e-9));
      EXPECT_EQ(found.violation > 0, !found.meets_bounds);
      missed += found.meets_bounds ? 0 : 1;
    }
    EXPECT_EQ(made.search->num_missed_bounds, missed);
    num_missed += missed;
  }
  EXPECT_GT(num_missed, 0) << "the case is not in this test";
}

// The time that the search reports is the time that is predicted for the plan: of the engine's
// kernel and of the batch.
TEST(MakePlan, MinimizesTheTimeOfTheEngineAndTheBatch) {
  const Trace trace = random_arrays(3).in_memory();
  const Link slow{.bandwidth_bytes_per_s = 1e9, .latency_s = 1e-5, .message_s = 1e-7};
  PlanRequest request{.cluster = {.num_nodes = 2,
                                  .ranks_per_node = 2,
                                  .intra_node = {.bandwidth_bytes_per_s = 1e11, .latency_s = 1e-6},
                                  .inter_node = slow,
                                  .device_flop_per_s = 1e12},
                      .goal = {.minimize = Goal::kTime, .hidden = 64, .intermediate = 32},
                      .effort = 0.1};
  EngineBackend normal = find_engine_backend("sglang", "deepep"), decoding = normal;
  decoding.decodes = true;
  std::set<double> times;
  for (const auto& engine :
       {std::optional<EngineBackend>(), std::optional(normal), std::optional(decoding),
        std::optional(find_engine_backend("vllm", ""))}) {
    for (const std::optional<std::int64_t> batch :
         {std::optional<std::int64_t>(), std::optional<std::int64_t>(64)}) {
      request.engine = engine;
      request.goal.batch_tokens = batch;
      const MadePlan made = make_plan(trace, request);
      const double predicted =
          mean_over_layers(made.plan.predictions.back().predicted_layer_time_s);
      EXPECT_NEAR(made.search->mean_value, predicted, 1e-9 * predicted);
      EXPECT_LE(made.search->mean_value_bound, predicted * (1 + 1e-9));
      times.insert(predicted);
    }
  }
  EXPECT_EQ(times.size(), 6u) << "2 batches; DeepEP normal sends as without an engine, per node";
  request.goal.batch_tokens = 0;
  EXPECT_EQ(error_of([&] { make_plan(trace, request); }),
            "batch_tokens is 0, but must be at least 1");
}

TEST(MakePlan, GivesForTokenSetsThePlacementsAndListsOfATrace) {
  const Arrays arrays = random_arrays(7);
  const PlanRequest request{.cluster = {.ranks_per_node = 4}, .top_t = 2, .effort = 0.1};
  const Plan of_trace = make_plan(arrays.in_memory(), request).plan;
  const Plan of_sets = make_plan(arrays.sets(), request).plan;
  EXPECT_EQ(of_sets.layers, of_trace.layers);
  // Without replicas the order of the tokens makes no difference.
  EXPECT_EQ(without_names(of_sets).predictions, without_names(of_trace).predictions);
}

// With replicas the order matters to ties: token sets count as tokens in the order of the sets.
TEST(MakePlan, PredictsForTokenSetsWhatATraceInTheirOrderGives) {
  const Arrays arrays = random_arrays(8);
  const ModelTokenSets sets = arrays.sets();
  Arrays in_order = arrays;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    std::int64_t t = 0;
    in_order.layers[layer] = Matrix<ExpertId>(200, 3, kNoExpert);
    for (std::int64_t set = 0; set < sets.layers[layer].num_sets(); ++set) {
      for (std::int64_t n = 0; n < sets.layers[layer].multiplicity[std::size_t(set)]; ++n) {
        std::ranges::copy(sets.layers[layer].experts.row(set),
                          in_order.layers[layer].row(t++).begin());
      }
    }
  }
  const PlanRequest request{
      .cluster = {.ranks_per_node = 4}, .redundant_slots_per_rank = 1, .effort = 0.1};
  EXPECT_EQ(without_names(make_plan(sets, request).plan),
            without_names(make_plan(in_order.in_memory(), request).plan));
  const Plan reported = make_plan(sets, request, &sets).plan;
  EXPECT_EQ(reported.predictions[0].trace, "token sets");
}

// By how much it is lowered is tested by hand in tests/end_to_end/plan_test.py.
TEST(MakePlan, SaysWhichBoundIsToHoldOnUnseenTokens) {
  const Trace trace = random_arrays(3).in_memory();
  PlanRequest request{.cluster = {.ranks_per_node = 4}, .effort = 0.1};
  request.goal.max_imbalance = 1.3;
  request.goal.bound_on = BoundOn::kUnseen;
  const MadePlan made = make_plan(trace, request);
  EXPECT_EQ(made.search->unseen_max_imbalance, 1.3);
  EXPECT_LE(*made.search->objective.max_imbalance, 1.3);
  EXPECT_GE(*made.search->objective.max_imbalance, 1);
  const auto& options = made.plan.provenance.options;
  EXPECT_EQ(std::ranges::find(options, "bound_on", &PlanOption::name)->value,
            PlanOption::Value("unseen"));
  EXPECT_EQ(std::ranges::find(options, "fitted_max_imbalance", &PlanOption::name)->value,
            PlanOption::Value(*made.search->objective.max_imbalance));
}

class Steps : public Progress {
 public:
  void begin(std::string_view step) override {
    check_ended();
    names.emplace_back(step);
  }
  void update(std::int64_t done, std::int64_t total) override {
    done_ = done;
    total_ = total;
  }
  void check_ended() const { EXPECT_EQ(done_, total_) << names.back(); }
  std::vector<std::string> names;

 private:
  std::int64_t done_ = 0, total_ = 0;
};

TEST(MakePlan, TellsItsStepsEndsThemAndWarns) {
  const auto ids = rows_of({{0, 1}, {1, 0}, {2, 3}});
  const MatrixView<const ExpertId> layers[] = {ids};
  const Trace trace(header_of(4, 2, 1), layers);
  Steps steps;
  const std::atomic<bool> stop = true;
  std::vector<std::string> warnings;
  const MadePlan made = make_plan(
      trace, {.cluster = {.ranks_per_node = 2}, .top_t = 2, .num_threads = 3}, SequencePart::kAll,
      {.progress = &steps,
       .stop = &stop,
       .warn = [&](const std::string& message) { warnings.push_back(message); },
       .top_t_name = "--top-t"});
  steps.check_ended();
  EXPECT_EQ(steps.names, (std::vector<std::string>{"placing experts", "predicting"}));
  EXPECT_EQ(warnings, (std::vector<std::string>{
                          "4 of 4 experts were chosen together with fewer than 2 others; their "
                          "lists are filled up by expert id: count more tokens, or take a smaller "
                          "--top-t"}));
}

TEST(MakePlan, RefusesRequestsThatContradictThemselves) {
  const Trace trace = random_arrays(1).in_memory();
  const auto error_with = [&](const auto& change) {
    PlanRequest request{.cluster = {.ranks_per_node = 4}};
    change(request);
    return error_of([&] { (void)make_plan(trace, request); });
  };
  EXPECT_EQ(
      error_with([](PlanRequest& r) { r.method = "best"; }),
      "a method is optimize, contiguous, round-robin, random, eplb, balance, affinity, grace or "
      "exhaustive; not 'best'");
  EXPECT_EQ(
      error_with([](PlanRequest& r) { r.top_t = 8; }),
      "top_t 8 is not in [2, 7]: a token of top-3 needs 2 collaborators, and an expert has 7");
  EXPECT_EQ(error_with([](PlanRequest& r) { r.redundant_slots_per_rank = -1; }),
            "redundant_slots_per_rank is -1, but must be at least 0");
  EXPECT_EQ(error_with([](PlanRequest& r) { r.method = "random", r.num_groups = 2; }),
            "num_groups is for the methods optimize and eplb, not random");
  EXPECT_EQ(error_with([](PlanRequest& r) { r.goal.imbalance_weight = -1; }),
            "imbalance_weight is -1, but must be at least 0");
  EXPECT_EQ(error_with([](PlanRequest& r) {
              r.goal.minimize = Goal::kImbalance, r.goal.imbalance_weight = 1;
            }),
            "imbalance_weight adds to the copies, so it is for the goal copies, not imbalance");
  EXPECT_EQ(error_with([](PlanRequest& r) { r.goal.max_copies = 2; }),
            "max_copies is a bound for the goal imbalance, not copies");
  EXPECT_EQ(error_with([](PlanRequest& r) { r.goal.minimize = Goal::kTime; }),
            "the goal time needs hidden and intermediate above 0, not 0 and 0");
  EXPECT_EQ(error_with([](PlanRequest& r) {
              r.goal.minimize = Goal::kTime, r.goal.hidden = r.goal.intermediate = 8;
            }),
            "the goal time needs a cluster with device_flop_per_s");
  EXPECT_EQ(error_with([](PlanRequest& r) {
              r.goal.bound_on = BoundOn::kUnseen, r.goal.imbalance_weight = 1;
            }),
            "a bound on unseen tokens needs max_imbalance");
  EXPECT_EQ(error_with([](PlanRequest& r) {
              r.goal.bound_on = BoundOn::kUnseen, r.goal.minimize = Goal::kImbalance;
            }),
            "a bound on unseen tokens is for the goal copies, not imbalance");
}

TEST(MakePlan, RefusesTokensThatDoNotSuffice) {
  const auto ids = rows_of({{0, 1}, {1, 0}});
  const MatrixView<const ExpertId> layers[] = {ids};
  const Trace trace(header_of(4, 2, 1), layers);
  PlanRequest request{.cluster = {.ranks_per_node = 2}};
  EXPECT_EQ(error_of([&] { (void)make_plan(trace, request, SequencePart::kEven); }).substr(0, 58),
            "memory has no tokens in the part 'odd' of its 1 sequence: ");
  request.goal.bound_on = BoundOn::kUnseen;
  EXPECT_EQ(error_of([&] { (void)make_plan(trace, request); }),
            "a bound on unseen tokens needs two sequences to fit, but memory has one there");
  EXPECT_EQ(error_of([&] { (void)make_plan(random_arrays(1).sets(), request); }),
            "a bound on unseen tokens needs a trace with sequences, but token sets has none");
}

TEST(MakePlan, RefusesTokenSetsThatDoNotHoldTogether) {
  const auto error_with = [](const auto& change) {
    ModelTokenSets sets = random_arrays(1).sets();
    change(sets);
    return error_of([&] { (void)make_plan(sets, {.cluster = {.ranks_per_node = 2}}); });
  };
  EXPECT_EQ(error_with([](ModelTokenSets& s) { s.layers.pop_back(); }),
            "token sets: there are token sets of 1 layers, but the header has 2");
  EXPECT_EQ(error_with([](ModelTokenSets& s) { s.header.top_k = 0; }).substr(0, 12),
            "token sets: ");
  EXPECT_EQ(
      error_with([](ModelTokenSets& s) { s.layers[1].num_experts = 9; }),
      "token sets: layer 1: the token sets are of 9 experts, top-3, but the header has 8, top-3");
  EXPECT_EQ(error_with([](ModelTokenSets& s) {
              s.layers[1].experts(2, 1) = ExpertId{900};
            }).substr(0, 21),
            "token sets: layer 1: ");
  EXPECT_EQ(
      error_with([](ModelTokenSets& s) { s.layers[1].multiplicity.pop_back(); }).substr(0, 37),
      "token sets: layer 1: token sets are [");
  EXPECT_EQ(error_with([](ModelTokenSets& s) { s.layers[1].multiplicity[1] = 0; }).substr(0, 55),
            "token sets: layer 1: token set 1 has the multiplicity 0");
  EXPECT_EQ(error_with([](ModelTokenSets& s) { s.layers[1].num_tokens = 300; }),
            "token sets: layer 1 has 300 tokens, but must have 200");
}

TEST(ContentHash, DependsOnEveryChoiceInMemory) {
  const Arrays arrays = random_arrays(2);
  Arrays changed = arrays;
  std::swap(changed.layers[1](150, 0), changed.layers[1](150, 1));
  EXPECT_NE(content_hash(arrays.in_memory()), content_hash(changed.in_memory()));
  EXPECT_EQ(content_hash(arrays.in_memory()), content_hash(random_arrays(2).in_memory()));
  EXPECT_NE(content_hash(arrays.sets()), content_hash(random_arrays(4).sets()));
  EXPECT_EQ(content_hash(arrays.sets()), content_hash(changed.sets()));  // sets have no order
}

}  // namespace
}  // namespace c2r
