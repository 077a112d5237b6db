// Declares the options of `c2r plan`, checks them, and makes the request.
#include "c2r/cli/commands/plan_options.h"

#include <fmt/format.h>

#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/cli/app.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/output.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/core/error.h"
#include "c2r/placement/baselines/baselines.h"

namespace c2r::cli {
namespace {

void add_inputs(CLI::App& command, PlanOptions& options) {
  command
      .add_option(
          "trace", options.traces,
          "the routing trace to fit, or several of one model, which are fitted together; or "
          "statistics: pair counts, or loads, for which the default method is balance")
      ->required();
  command.add_option("--cluster", options.cluster, kClusterHelp)->required()->type_name("CLUSTER");
  add_output(command, options.output, "the plan to write")->required();
  command
      .add_option("--fit", options.fit,
                  "the sequences to fit: all, even, odd, first-half, second-half; the others are "
                  "reported on")
      ->capture_default_str()
      ->check(offered_parts())
      ->type_name("PART");
  command
      .add_option(
          "--scenarios", options.scenarios,
          "groups of the fitted sequences, in the worst of which the bound on imbalance is to "
          "hold and the imbalance or the time is minimized: 8 for eight groups of neighbours, "
          "clusters:8 for eight groups that choose alike, traces for one group a trace, or "
          "parts, such as first-half,second-half")
      ->type_name("GROUPS");
}

void add_placement_options(CLI::App& command, PlanOptions& options) {
  command
      .add_option("--redundant-slots", options.redundant_slots,
                  "slots of each rank for replicas of busy experts")
      ->capture_default_str()
      ->check(in_range(0, 1024))
      ->type_name("N");
  command
      .add_option(
          "--top-t", options.top_t,
          "also write the top-T collaborators of each expert on the fitted tokens into the plan")
      ->check(in_range(1, 1024))
      ->type_name("T");
  command
      .add_option("--num-groups", options.num_groups,
                  "for group-limited routing: place each of N groups of experts on one node")
      ->check(in_range(1, 1024))
      ->type_name("N");
  std::vector<std::string> methods = {std::string(kOptimizeMethod)};
  for (const std::string_view name : baseline_names()) methods.emplace_back(name);
  command
      .add_option("--method", options.method,
                  "optimize, or a baseline: contiguous, round-robin, random, eplb, balance, "
                  "affinity, grace, exhaustive")
      ->check(offered(methods))
      ->capture_default_str()
      ->type_name("NAME");
  command.add_option("--seed", options.seed, "the seed of the search")
      ->check(in_range(0, INT64_MAX))
      ->capture_default_str()
      ->type_name("N");
}

void add_homes(CLI::App& command, PlanOptions& options) {
  command
      .add_option(
          "--homes", options.homes,
          "uniform: the home ranks of tokens are not chosen; signature: number the ranks of "
          "each layer so that a sequence prefers one number in all layers, and write the "
          "signature by which a request router chooses the home of a sequence")
      ->check(one_of({"uniform", "signature"}))
      ->capture_default_str()
      ->type_name("HOMES");
  command
      .add_option("--home-tokens", options.home_tokens,
                  "with --homes signature: the tokens of a sequence, from its beginning, by whose "
                  "experts its home is chosen")
      ->check(in_range(1, INT64_C(1) << 40))
      ->capture_default_str()
      ->type_name("N");
  command
      .add_option("--home-by", options.home_by,
                  "with --homes signature: experts: a home is chosen by the experts of the first "
                  "tokens; token-ids: also write weights of token ids, by which it is chosen "
                  "before any token runs; for traces with token ids (c2r profile --token-ids)")
      ->check(one_of({"experts", "token-ids"}))
      ->capture_default_str()
      ->type_name("WHAT");
}

void add_running_options(CLI::App& command, PlanOptions& options) {
  command
      .add_option(
          "--from", options.from,
          "the plan that runs now: ranks and slots of the new one are numbered so that the fewest "
          "experts move, and layers for which nothing better is found stay; also print after how "
          "many steps the moves pay")
      ->type_name("PLAN");
  command
      .add_option(
          "--max-moves", options.max_moves,
          "with --from: change the plan that runs by at most so many experts, of all layers "
          "together, instead of searching a new one")
      ->check(in_range(0, 1 << 30))
      ->type_name("N");
  command
      .add_option("--move-cost", options.move_cost,
                  "with --from: bytes to load for an expert that moves; default is three bf16 "
                  "matrices of --hidden x --intermediate")
      ->check(number_in(1, 1e15))
      ->type_name("BYTES");
}

void add_bounds(CLI::App& command, GoalOptions& options) {
  command
      .add_option(
          "--max-imbalance", options.max_imbalance,
          fmt::format("a bound on the imbalance of each layer; default is {} if only copies are "
                      "minimized, else none",
                      kDefaultMaxImbalance))
      ->check(number_in(1, 1e9))
      ->type_name("X");
  command
      .add_option(
          "--bound-on", options.bound_on,
          "fitted: the bound holds on the fitted tokens; unseen: it is lowered so that it holds on "
          "other tokens, too, by as much as placements of half of the fitted tokens miss it on the "
          "other half")
      ->check(one_of({"fitted", "unseen"}))
      ->capture_default_str()
      ->type_name("TOKENS");
  command
      .add_option("--max-copies", options.max_copies,
                  "for --minimize imbalance: a bound on the (weighted) copies of a token")
      ->check(number_in(1, 1e9))
      ->type_name("X");
}

void add_time_options(CLI::App& command, GoalOptions& options) {
  command
      .add_option(
          "--hidden", options.hidden,
          "values of a token, which is sent in bf16: with --engine for kB, and with --intermediate "
          "to predict times, and for --minimize time")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--intermediate", options.intermediate,
                  "the inner width of the experts: to predict times, and for --minimize time")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--overlap", options.overlap,
                  "for --minimize time: communication and experts added, or overlapped in chunks")
      ->capture_default_str()
      ->check(offered({"added", "overlapped"}))
      ->type_name("HOW");
  add_batch_tokens_option(command, options.batch_tokens);
}

void add_goal_options(CLI::App& command, GoalOptions& options) {
  command
      .add_option(
          "--minimize", options.minimize,
          "copies: copies of a token, those between nodes weighted by the time of their links; "
          "imbalance: the largest load of a rank over the mean; time: the time of a layer for "
          "--batch-tokens, predicted from the rates of the cluster or --hardware with copies sent "
          "as --engine sends them, without the time to read weights")
      ->check(one_of({"copies", "imbalance", "time"}))
      ->capture_default_str()
      ->type_name("GOAL");
  add_bounds(command, options);
  command
      .add_option("--imbalance-weight", options.imbalance_weight,
                  "minimize copies + W x (imbalance - 1)")
      ->check(number_in(0, 1e9))
      ->type_name("W");
  add_time_options(command, options);
}

void add_search_options(CLI::App& command, PlanOptions& options) {
  add_goal_options(command, options.goal);
  add_effort(command, options.effort, "multiplies the work of the search");
  command.add_flag(
      "--prove", options.proves,
      "list up to 2e7 possible contents of a rank instead of 5e4, to prove the optimum: "
      "with 32 experts on 4 ranks this takes 2 s of CPU time and up to 0.3 GB for each layer "
      "that is searched at a time");
  command
      .add_option("--seconds", options.seconds,
                  "take the best placement found in four fifths of S seconds; what is not counted "
                  "after S seconds, and one second after the search, is left out")
      ->check(number_in(1e-3, 1e9))
      ->type_name("S");
}

// Refuses options that only the optimizer uses.
void refuse_search_options(const CLI::App& command, const std::string& method) {
  for (const char* const name :
       {"--minimize", "--max-imbalance", "--bound-on", "--max-copies", "--imbalance-weight",
        "--hidden", "--intermediate", "--overlap", "--batch-tokens", "--effort", "--prove",
        "--seconds", "--scenarios"}) {
    if (std::string_view(name) == "--hidden" && command.count("--engine") > 0) continue;  // for kB
    C2R_REQUIRE(command.count(name) == 0, kInvalidArgument,
                "{} is for --method optimize; {} does not use it", name, method);
  }
}

void check_goal(const GoalOptions& options, bool has_engine) {
  C2R_REQUIRE(options.imbalance_weight == 0 || options.minimize == "copies", kInvalidArgument,
              "--imbalance-weight adds to the copies, so it needs --minimize copies");
  C2R_REQUIRE(!options.max_copies || options.minimize == "imbalance", kInvalidArgument,
              "--max-copies is a bound for --minimize imbalance");
  const bool is_time = options.minimize == "time";
  C2R_REQUIRE(!is_time || (options.hidden > 0 && options.intermediate > 0), kInvalidArgument,
              "--minimize time needs --hidden and --intermediate");
  const bool is_for_kilobytes = has_engine && options.intermediate == 0;
  C2R_REQUIRE((options.hidden > 0) == (options.intermediate > 0) || is_for_kilobytes,
              kInvalidArgument,
              "a time is predicted of --hidden and --intermediate, but one of them is missing");
  C2R_REQUIRE(options.batch_tokens == 0 || options.intermediate > 0, kInvalidArgument,
              "--batch-tokens is for predicted times, which need --hidden and --intermediate");
  (void)parse_overlap(options.overlap);  // a wrong name is an error of other goals, too
  const bool is_unseen = options.bound_on == "unseen";
  C2R_REQUIRE(!is_unseen || options.minimize == "copies", kInvalidArgument,
              "--bound-on unseen is for --minimize copies");
  C2R_REQUIRE(!is_unseen || options.max_imbalance || options.imbalance_weight == 0,
              kInvalidArgument, "--bound-on unseen needs --max-imbalance");
}

PlanGoal goal_of(const GoalOptions& options, const Cluster& cluster) {
  PlanGoal goal{.minimize = parse_goal(options.minimize),
                .imbalance_weight = options.imbalance_weight,
                .max_imbalance = options.max_imbalance,
                .bound_on = parse_bound_on(options.bound_on),
                .max_copies = options.max_copies,
                .hidden = options.hidden,
                .intermediate = options.intermediate,
                .overlap = parse_overlap(options.overlap)};
  if (options.batch_tokens > 0) goal.batch_tokens = options.batch_tokens;
  if (goal.minimize != Goal::kTime || cluster.device_flop_per_s) return goal;
  std::cerr << fmt::format(
      "warning: the cluster has no device_flop_per_s, so no time can be predicted; minimizing "
      "copies within --max-imbalance {} instead\n",
      goal.max_imbalance.value_or(kDefaultMaxImbalance));
  return {.max_imbalance = options.max_imbalance};
}

}  // namespace

CLI::Option* add_effort(CLI::App& command, double& effort, const std::string& help) {
  return command.add_option("--effort", effort, help)
      ->check(number_in(1e-6, 1e6))
      ->capture_default_str()
      ->type_name("X");
}

void add_plan_options(CLI::App& command, PlanOptions& options) {
  add_inputs(command, options);
  add_placement_options(command, options);
  add_engine_options(command, options.engine, options.backend);
  add_phase_option(command, options.phase);
  add_hardware_option(command, options.hardware);
  add_homes(command, options);
  add_running_options(command, options);
  add_search_options(command, options);
  add_threads(command, options.num_threads);
}

void check_plan_options(const CLI::App& command, const PlanOptions& options) {
  check_plan_method(options.method);
  const bool searches = options.method == kOptimizeMethod;
  if (!searches) refuse_search_options(command, options.method);
  C2R_REQUIRE(options.num_groups == 0 || searches || options.method == "eplb", kInvalidArgument,
              "--num-groups is for the methods optimize and eplb, not {}", options.method);
  if (searches) check_goal(options.goal, !options.engine.empty());
  C2R_REQUIRE(!options.from.empty() || (!options.max_moves && !options.move_cost), kInvalidArgument,
              "--max-moves and --move-cost need --from");
  C2R_REQUIRE(options.from.empty() || options.homes == "uniform", kInvalidArgument,
              "--homes signature numbers the ranks, and so does --from: only one of them can");
  C2R_REQUIRE(options.homes == "signature" || command.count("--home-tokens") == 0, kInvalidArgument,
              "--home-tokens is for --homes signature");
  C2R_REQUIRE(options.homes == "signature" || command.count("--home-by") == 0, kInvalidArgument,
              "--home-by is for --homes signature");
  std::vector<std::string> inputs = options.traces;
  inputs.push_back(options.cluster);
  check_output(options.output, inputs);
}

PlanRequest plan_request_of(const PlanOptions& options, const Cluster& cluster) {
  PlanRequest request{.cluster = cluster,
                      .method = options.method,
                      .redundant_slots_per_rank = options.redundant_slots,
                      .seed = options.seed,
                      .engine = engine_of(options.engine, options.backend, options.phase),
                      .num_threads = options.num_threads,
                      .scenarios = options.scenarios,
                      .goal = goal_of(options.goal, cluster),
                      .effort = options.effort,
                      .seconds = options.seconds,
                      .proves = options.proves};
  if (options.num_groups > 0) request.num_groups = options.num_groups;
  if (options.top_t > 0) request.top_t = options.top_t;
  if (options.homes == "signature") request.home_tokens = options.home_tokens;
  request.has_token_weights = options.home_by == "token-ids";
  if (!options.from.empty()) {
    request.from = RunningPlan{.plan = read_plan(options.from),
                               .name = options.from,
                               .max_moves = options.max_moves,
                               .expert_bytes = options.move_cost};
  }
  return request;
}

}  // namespace c2r::cli
