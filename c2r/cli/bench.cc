// `c2r bench`: one MoE layer on several ranks, timed in several ways that take turns; or a model.
#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "c2r/cli/app.h"
#include "c2r/cli/bench_model.h"
#include "c2r/cli/bench_output.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/plan/plan.h"

namespace c2r::cli {
namespace {

Cluster cluster_of(const BenchOptions& options, std::int32_t ep_size) {
  Cluster cluster{.ranks_per_node = ep_size};
  if (!options.plan.empty()) cluster = read_plan(options.plan).cluster;
  if (!options.cluster.empty()) cluster = read_cluster(options.cluster);
  C2R_REQUIRE(cluster.ep_size() == ep_size, kInvalidArgument,
              "the cluster has {}x{} ranks, but {} are running", cluster.num_nodes,
              cluster.ranks_per_node, ep_size);
  return cluster;
}

Placement placement_of(const BenchOptions& options, const LayerShape& shape, std::int32_t ep_size) {
  if (options.plan.empty()) return place_contiguous(shape.num_experts, ep_size);
  const Plan plan = read_plan(options.plan);
  C2R_REQUIRE(options.layer < plan.num_layers() && plan.num_experts == shape.num_experts,
              kInvalidArgument,
              "{} is for {} layers of {} experts, but layer {} of {} was asked for", options.plan,
              plan.num_layers(), plan.num_experts, options.layer, shape.num_experts);
  return plan.layers[std::size_t(options.layer)].placement;
}

// What was asked for, the same without one ingredient each, and the baseline.
std::vector<LayerVariant> variants_of(const BenchOptions& options, const BenchProblem& problem) {
  const std::int32_t ep_size = problem.cluster.ep_size();
  const LayerVariant asked{.name = "as asked",
                           .placement = placement_of(options, problem.shape, ep_size),
                           .dispatch = {.cluster = problem.cluster,
                                        .mode = parse_copy_mode(options.copy_mode),
                                        .rule = parse_replica_rule(options.rule),
                                        .seed = options.seed,
                                        .row_type = parse_row_type(options.row_type)},
                           .num_chunks = options.num_chunks};
  const Placement contiguous = place_contiguous(problem.shape.num_experts, ep_size);
  std::vector<LayerVariant> variants{asked};
  const auto add = [&](const char* name) -> LayerVariant& {
    variants.push_back(asked);
    variants.back().name = name;
    return variants.back();
  };
  if (options.is_ablation) {
    LayerVariant& in_turn = add("without overlap");
    in_turn.num_chunks = 1, in_turn.overlaps_shared = in_turn.dispatch.separates_own = false;
    add("without placement").placement = contiguous;
    add("without local sums").dispatch.sums_before_return = false;
    add("without deduplication").dispatch.mode = CopyMode::kPerExpert;
  }
  LayerVariant& baseline = add("baseline");
  baseline.placement = contiguous;
  baseline.dispatch.mode = CopyMode::kPerExpert;
  baseline.num_chunks = 1, baseline.overlaps_shared = baseline.dispatch.separates_own = false;
  return variants;
}

// `num_tokens` tokens of the sequences that live on `rank`, as `c2r simulate --homes sequences`
// deals them out.
Matrix<ExpertId> choices_from(const Trace& trace, const BenchOptions& options, std::int32_t ep_size,
                              RankId rank) {
  const auto ranges = ranges_of(trace, parse_sequence_part(options.part));
  const auto homes =
      homes_of_sequences(trace.sequence_starts(), trace.num_tokens(), ep_size, ranges);
  Matrix<ExpertId> choices(options.num_tokens, trace.header().top_k);
  std::int64_t num_found = 0;
  for (const auto& [begin, end] : ranges) {
    for (std::int64_t t = begin; t < end && num_found < options.num_tokens; ++t) {
      if (homes[std::size_t(t)] != rank) continue;
      std::ranges::copy(trace.topk_idx(options.layer, t, t + 1).row(0),
                        choices.row(num_found++).begin());
    }
  }
  C2R_REQUIRE(num_found == options.num_tokens, kInvalidArgument,
              "{}: has {} tokens for rank {}, but --tokens is {}", trace.path(), num_found,
              index(rank), options.num_tokens);
  return choices;
}

// Every set of experts equally likely.
Matrix<ExpertId> random_choices(const LayerShape& shape, const BenchOptions& options, RankId rank) {
  std::mt19937_64 rng(mix_bits(options.seed) + index(rank));
  std::vector<std::int32_t> experts(std::size_t(shape.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  Matrix<ExpertId> choices(options.num_tokens, shape.top_k);
  for (std::int64_t t = 0; t < choices.rows(); ++t) {
    for (std::int64_t k = 0; k < shape.top_k; ++k) {
      const auto other = std::size_t(k) + uniform_below(experts.size() - std::size_t(k), rng);
      std::swap(experts[std::size_t(k)], experts[other]);
      choices(t, k) = ExpertId{experts[std::size_t(k)]};
    }
  }
  return choices;
}

BenchProblem make_problem(const BenchOptions& options, std::int32_t ep_size) {
  BenchProblem problem{.shape = layer_shape(options.problem),
                       .routing = "uniformly random choices"};
  if (!options.trace.empty()) {
    problem.trace.emplace(options.trace);
    const TraceHeader& header = problem.trace->header();
    C2R_REQUIRE(options.layer < header.num_layers(), kInvalidArgument,
                "{}: has {} layers, but --layer is {}", options.trace, header.num_layers(),
                options.layer);
    problem.shape.num_experts = header.num_experts;
    problem.shape.top_k = header.top_k;
    problem.routing =
        fmt::format("layer {} of {}, {} sequences", options.layer, header.model, options.part);
  }
  problem.cluster = cluster_of(options, ep_size);
  problem.has_link_speeds = options.cluster.ends_with(".json");
  problem.variants = variants_of(options, problem);
  if (options.what == "layer") problem.experts.emplace(problem.shape);
  return problem;
}

void run_bench(const BenchOptions& options) {
  std::optional<BenchProblem> shared;  // by the ranks of this process
  if (!is_under_mpirun()) shared = make_problem(options, std::max(options.ranks.num_ranks, 1));
  run_ranks(options.ranks, [&](Transport& transport) {
    std::optional<BenchProblem> own;
    if (!shared) own = make_problem(options, transport.ep_size());
    const BenchProblem& problem = shared ? *shared : *own;
    Matrix<ExpertId> choices =
        problem.trace ? choices_from(*problem.trace, options, transport.ep_size(), transport.rank())
                      : random_choices(problem.shape, options, transport.rank());
    const LayerBatch batch =
        make_layer_batch(std::move(choices), problem.shape.hidden, index(transport.rank()));
    ThreadPool pool(options.num_threads);
    const LayerBenchOptions layer{
        .shape = problem.shape,
        .has_experts = options.what == "layer",
        .arithmetic = options.dtype == "f32" ? Arithmetic::kF32 : Arithmetic::kBf16,
        .num_rounds = options.num_rounds};
    const bool is_first_rank = transport.rank() == RankId{0};
    auto progress = make_progress(is_first_rank, "timing the " + options.what);
    const auto results =
        bench_layer(transport, pool, layer, problem.experts ? &*problem.experts : nullptr, batch,
                    problem.variants, *progress);
    progress.reset();  // wipes the line
    if (is_first_rank) print_bench(options, problem, results);
  });
}

CLI::Option* add_text(CLI::App& command, const char* name, std::string& value, const char* help,
                      const char* type) {
  return command.add_option(name, value, help)->type_name(type);
}

void add_problem_options(CLI::App& command, BenchOptions& options) {
  command
      .add_option("problem", options.problem,
                  "qwen1.5-moe, llama-moe, olmoe, mixtral-8x7b or deepseek-v3")
      ->required();
  command.add_option("--tokens", options.num_tokens, "tokens of each rank")
      ->check(in_range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  auto* const trace =
      add_text(command, "--trace", options.trace,
               "choices of this trace, whose experts and top-k replace the shape's", "FILE");
  command.add_option("--layer", options.layer, "of the trace and the plan, from 0")
      ->check(in_range(0, 1023))
      ->capture_default_str()
      ->type_name("N");
  add_text(command, "--on", options.part,
           "which sequences: all, even, odd, first-half or second-half", "PART")
      ->needs(trace)
      ->capture_default_str();
  command.add_option("--seed", options.seed, "of random choices and replica rules")
      ->capture_default_str()
      ->type_name("N");
}

void add_run_options(CLI::App& command, BenchOptions& options) {
  const auto text = [&](const char* name, std::string& value, const char* help, const char* type) {
    return add_text(command, name, value, help, type);
  };
  add_rank_options(command, options.ranks);
  text("--plan", options.plan, "the placement; without one, contiguous", "FILE");
  text("--cluster", options.cluster,
       "NODESxRANKS, or a JSON file with link speeds, from which the links' bound follows",
       "CLUSTER");
  text("--copy-mode", options.copy_mode, "per-rank, per-node or per-expert", "MODE")
      ->capture_default_str();
  text("--replica-rule", options.rule, "fewest-ranks, local-first or random", "RULE")
      ->capture_default_str();
  text("--row-type", options.row_type, "how rows travel: bf16 or f32", "TYPE")
      ->capture_default_str();
  text("--dtype", options.dtype, "the experts' arithmetic: bf16 or f32", "TYPE")
      ->check(CLI::IsMember({"bf16", "f32"}).description(""))
      ->capture_default_str();
  add_chunks_option(command, options.num_chunks);
  command.add_option("--rounds", options.num_rounds, "timed rounds, after two to warm up")
      ->check(in_range(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--threads", options.num_threads, "threads of each rank")
      ->check(in_range(1, 1024))
      ->capture_default_str()
      ->type_name("N");
  command.add_flag("--ablate", options.is_ablation,
                   "also without overlap, placement, local sums and deduplication, one at a time");
  command.add_flag("--json", options.is_json, "print one JSON object");
}

// `c2r bench layer`, or `c2r bench exchange`.
void add_bench_layer(CLI::App& bench, const char* what, const char* help) {
  auto* const command = bench.add_subcommand(what, help);
  auto options = std::make_shared<BenchOptions>();
  options->what = what;
  add_problem_options(*command, *options);
  add_run_options(*command, *options);
  command->footer(
      "The baseline sends a copy for every choice to contiguous experts, computes, and sends "
      "every\n"
      "result back. All ways of running the layer take turns, and are checked before.\n\n"
      "Example:\n"
      "  c2r bench " +
      std::string(what) + " olmoe --ranks 2 --tokens 4 --rounds 1");
  command->callback([options, command] {
    const bool has_layers = !options->trace.empty() || !options->plan.empty();
    C2R_REQUIRE(command->count("--layer") == 0 || has_layers, kInvalidArgument,
                "--layer needs --trace or --plan");
    run_bench(*options);
  });
}

}  // namespace

void add_bench(CLI::App& app) {
  auto* const command =
      app.add_subcommand("bench", "time a MoE layer on several ranks, or a model");
  command->require_subcommand(1);
  add_bench_layer(*command, "layer", "one MoE layer in several ways, beside the baseline");
  add_bench_layer(*command, "exchange",
                  "one MoE layer's dispatch and combine, experts left out, beside the baseline");
  add_bench_model(*command);
  command->footer("Example:\n  c2r bench exchange olmoe --ranks 4 --tokens 64 --rounds 1");
}

}  // namespace c2r::cli
