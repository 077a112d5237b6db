// `c2r bench`: times one MoE layer on several ranks in several ways that take turns.
#include <algorithm>
#include <memory>
#include <optional>

#include "c2r/bench/bench_device.h"
#include "c2r/bench/layer_problem.h"
#include "c2r/bench/measure_links.h"
#include "c2r/cli/app.h"
#include "c2r/cli/commands/bench_output.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/plan/plan.h"

namespace c2r::cli {
namespace {

// The files of the options.
struct BenchFiles {
  std::optional<Trace> trace;
  std::optional<Plan> plan;
};

BenchFiles read_files(const BenchOptions& options) {
  BenchFiles files;
  if (!options.trace.empty()) {
    const std::int64_t num_layers = files.trace.emplace(options.trace).header().num_layers();
    C2R_REQUIRE(options.layer < num_layers, kInvalidArgument,
                "{}: has {} layers, but --layer is {}", options.trace, num_layers, options.layer);
  }
  if (!options.plan.empty()) files.plan = read_plan(options.plan);
  return files;
}

LayerProblemOptions problem_options(const BenchOptions& options, const BenchFiles& files) {
  LayerProblemOptions problem{
      .shape = options.problem,
      .num_tokens = options.num_tokens,
      .trace = files.trace ? &*files.trace : nullptr,
      .part = parse_sequence_part(options.part),
      .plan = files.plan ? &*files.plan : nullptr,
      .layer = options.layer,
      .dispatch = {.traffic = {.copy_mode = parse_copy_mode(options.copy_mode),
                               .replica_rule = parse_replica_rule(options.rule),
                               .seed = options.seed},
                   .row_type = parse_row_type(options.row_type)},
      .num_chunks = options.num_chunks,
      .seed = options.seed,
      .has_experts = options.what == "layer",
      .has_ablation = options.is_ablation};
  if (!options.cluster.empty()) problem.cluster = read_cluster(options.cluster);
  return problem;
}

// The problem, which all ranks of a process share.
struct SharedProblem {
  BenchFiles files;
  LayerProblemOptions options;
  LayerProblem problem;

  SharedProblem(const BenchOptions& bench, std::int32_t ep_size)
      : files(read_files(bench)),
        options(problem_options(bench, files)),
        problem(make_layer_problem(options, ep_size)) {}
  SharedProblem(const SharedProblem&) = delete;
  SharedProblem& operator=(const SharedProblem&) = delete;
};

void run_on_device(const BenchOptions& options, const LayerProblem& problem,
                   const LayerBatch& batch, MakeCudaDevice make_cuda_device, Transport& transport) {
  const bool is_first_rank = transport.rank() == RankId{0};
  auto progress = make_progress(is_first_rank, "timing the layer");
  const DeviceBenchResult result = bench_device_layer(transport, {.num_rounds = options.num_rounds},
                                                      problem, batch, make_cuda_device, *progress);
  progress.reset();  // wipes the line
  if (is_first_rank) print_device_bench(options, problem, result);
}

void check_device_options(const BenchOptions& options, MakeCudaDevice make_cuda_device) {
  if (options.device == "cpu") return;
  C2R_REQUIRE(make_cuda_device != nullptr, kUnsupported,
              "this program was built without CUDA; the one with it is c2r-cuda, which the target "
              "c2r_cuda_program makes (docs/cuda.md)");
  C2R_REQUIRE(options.dtype == "bf16", kInvalidArgument,
              "--device cuda computes in bf16; leave --dtype {} out", options.dtype);
}

void run_rank(const BenchOptions& options, const SharedProblem& shared,
              MakeCudaDevice make_cuda_device, Transport& transport) {
  const LayerProblem& problem = shared.problem;
  const LayerBatch batch =
      make_layer_batch(choices_of_rank(shared.options, problem, transport.rank()),
                       problem.shape.hidden, index(transport.rank()));
  if (options.device == "cuda") {
    return run_on_device(options, problem, batch, make_cuda_device, transport);
  }
  ThreadPool pool(options.num_threads);
  const LayerBenchOptions layer{
      .shape = problem.shape,
      .has_experts = shared.options.has_experts,
      .arithmetic = options.dtype == "f32" ? Arithmetic::kF32 : Arithmetic::kBf16,
      .num_rounds = options.num_rounds};
  const bool is_first_rank = transport.rank() == RankId{0};
  auto progress = make_progress(is_first_rank, "timing the " + options.what);
  const auto results =
      bench_layer(transport, pool, layer, problem.experts ? &*problem.experts : nullptr, batch,
                  problem.variants, *progress);
  progress.reset();  // wipes the line
  if (is_first_rank) print_bench(options, problem, results);
  if (options.hardware_out.empty()) return;
  Cluster shape{.ranks_per_node = transport.ep_size()};
  if (!options.cluster.empty()) shape = read_cluster(options.cluster);
  const Hardware links = measure_links(transport, shape, 4 * options.num_rounds + 1);
  if (is_first_rank) {
    write_text_file(options.hardware_out, json_text(hardware_to_json(links), 1) + "\n");
  }
}

void run_bench(const BenchOptions& options, MakeCudaDevice make_cuda_device) {
  check_device_options(options, make_cuda_device);
  std::optional<SharedProblem> shared;  // by the ranks of this process
  if (!is_under_mpirun()) shared.emplace(options, std::max(options.ranks.num_ranks, 1));
  run_ranks(options.ranks, [&](Transport& transport) {
    if (is_under_mpirun()) shared.emplace(options, transport.ep_size());
    run_rank(options, *shared, make_cuda_device, transport);
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
      ->check(offered({"qwen1.5-moe", "llama-moe", "olmoe", "mixtral-8x7b", "deepseek-v3"}))
      ->required();
  command.add_option("--tokens", options.num_tokens, "tokens of each rank")
      ->check(in_range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  auto* const trace = add_text(
      command, "--trace", options.trace,
      "take the choices of this trace; its experts and top-k replace those of the problem", "FILE");
  command.add_option("--layer", options.layer, "the layer of the trace and the plan, from 0")
      ->check(in_range(0, 1023))
      ->capture_default_str()
      ->type_name("N");
  add_text(command, "--on", options.part,
           "the sequences of the trace: all, even, odd, first-half or second-half", "PART")
      ->check(offered_parts())
      ->needs(trace)
      ->capture_default_str();
  command.add_option("--seed", options.seed, "the seed of random choices and replica rules")
      ->capture_default_str()
      ->type_name("N");
}

void add_run_options(CLI::App& command, BenchOptions& options) {
  const auto text = [&](const char* name, std::string& value, const char* help, const char* type) {
    return add_text(command, name, value, help, type);
  };
  add_rank_options(command, options.ranks);
  text("--plan", options.plan, "the plan whose placement is used; default is contiguous experts",
       "FILE");
  text("--cluster", options.cluster,
       "NODESxRANKS, or a JSON file with link speeds, for which a bound of the links is printed",
       "CLUSTER");
  text("--copy-mode", options.copy_mode, "per-rank, per-node or per-expert", "MODE")
      ->check(offered({"per-rank", "per-node", "per-expert"}))
      ->capture_default_str();
  text("--replica-rule", options.rule, "fewest-ranks, local-first or random", "RULE")
      ->check(offered({"fewest-ranks", "local-first", "random"}))
      ->capture_default_str();
  text("--row-type", options.row_type, "the type of rows that are sent: bf16 or f32", "TYPE")
      ->check(offered({"bf16", "f32"}))
      ->capture_default_str();
  text("--dtype", options.dtype, "the experts' arithmetic: bf16 or f32", "TYPE")
      ->check(one_of({"bf16", "f32"}))
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
  command.add_flag(
      "--ablate", options.is_ablation,
      "also leave out overlap, placement, local sums and deduplication, one at a time");
  command.add_flag("--json", options.is_json, "print one JSON object");
}

// `c2r bench layer`, or `c2r bench exchange`.
void add_bench_layer(CLI::App& bench, const char* what, const char* help,
                     MakeCudaDevice make_cuda_device) {
  auto* const command = bench.add_subcommand(what, help);
  auto options = std::make_shared<BenchOptions>();
  options->what = what;
  add_problem_options(*command, *options);
  add_run_options(*command, *options);
  if (options->what == "layer") {
    add_text(*command, "--device", options->device,
             "cpu, or cuda: on GPUs, without shared experts; only a program that was built with "
             "CUDA can",
             "DEVICE")
        ->check(one_of({"cpu", "cuda"}))
        ->capture_default_str();
  }
  if (options->what == "exchange") {
    add_text(*command, "--hardware-out", options->hardware_out,
             "also measure the latency and the bandwidth of the links, and write them for "
             "--hardware of c2r plan, simulate and compare",
             "FILE");
  }
  command->footer(
      "The baseline sends a copy for every choice to contiguous experts, computes, and sends "
      "every result back. All ways of running the layer take turns. Their results are checked "
      "before.\n\n"
      "Example:\n"
      "  c2r bench " +
      std::string(what) + " olmoe --ranks 2 --tokens 4 --rounds 1");
  command->callback([options, command, make_cuda_device] {
    const bool has_layers = !options->trace.empty() || !options->plan.empty();
    C2R_REQUIRE(command->count("--layer") == 0 || has_layers, kInvalidArgument,
                "--layer needs --trace or --plan");
    run_bench(*options, make_cuda_device);
  });
}

}  // namespace

void add_bench(CLI::App& app, MakeCudaDevice make_cuda_device) {
  auto* const command =
      app.add_subcommand("bench", "time a MoE layer on several ranks, or a model");
  command->require_subcommand(1);
  add_bench_layer(*command, "layer", "time one MoE layer in several ways, beside the baseline",
                  make_cuda_device);
  add_bench_layer(
      *command, "exchange",
      "time dispatch and combine of one MoE layer without its experts, beside the baseline",
      nullptr);
  add_bench_model(*command);
  command->footer("Example:\n  c2r bench exchange olmoe --ranks 4 --tokens 64 --rounds 1");
}

}  // namespace c2r::cli
