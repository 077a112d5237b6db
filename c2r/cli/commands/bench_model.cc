// `c2r bench model`: times prompts and decoding steps of a whole model.
#include "c2r/bench/bench_model.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/version.h"
#include "c2r/io/json.h"
#include "c2r/report/table.h"

namespace c2r::cli {
namespace {

struct BenchModelOptions {
  ModelOptions model;
  ModelBenchRequest request;
  bool is_json = false;
};

void print_model_json(const BenchModelOptions& options,
                      const std::vector<ModelBenchPhase>& phases) {
  Json json = {{"version", version_text()},
               {"model", options.model.model},
               {"dtype", options.model.dtype},
               {"prompt_tokens", options.request.prompt_tokens},
               {"num_steps", options.request.num_steps},
               {"phases", Json::array()}};
  for (const ModelBenchPhase& phase : phases) {
    json["phases"].push_back({{"name", phase.name},
                              {"batch_size", phase.batch_size},
                              {"num_tokens", phase.num_tokens},
                              {"seconds", phase.seconds},
                              {"flop", phase.flop},
                              {"weight_bytes", phase.weight_bytes}});
  }
  std::cout << json_text(json, 1) << "\n";
}

void print_model_table(const std::vector<ModelBenchPhase>& phases) {
  std::vector<std::vector<std::string>> rows{
      {"", "batch", "tokens/s", "slowest", "fastest", "GFLOP/s", "GB/s of weights"}};
  const auto number = [](double value) { return fmt::format("{:.2f}", value); };
  for (const ModelBenchPhase& phase : phases) {
    const PhaseRates rates = rates_of(phase);
    rows.push_back({std::string(phase.name), fmt::format("{}", phase.batch_size),
                    number(rates.tokens_per_s), number(rates.slowest_tokens_per_s),
                    number(rates.fastest_tokens_per_s), number(1e-9 * rates.flop_per_s),
                    number(1e-9 * rates.weight_bytes_per_s)});
  }
  std::cout << render_table(rows);
}

Work prepare_bench_model(const BenchModelOptions& options, OpenModel& open) {
  check_request(options.request, open.model.config());
  return [&options, &open] {
    auto progress = make_progress(open.is_first_rank(), "timing the model");
    const auto phases = bench_model(open.engine, open.model, options.request, *progress);
    progress.reset();  // wipes the line
    if (!open.is_first_rank()) return;
    if (options.is_json) {
      print_model_json(options, phases);
    } else {
      print_model_table(phases);
    }
  };
}

}  // namespace

void add_bench_model(CLI::App& bench) {
  auto* const command =
      bench.add_subcommand("model", "time prompts and decoding steps of a whole model");
  auto options = std::make_shared<BenchModelOptions>();
  add_model_options(*command, options->model);
  options->model.command = "bench";
  ModelBenchRequest& request = options->request;
  const auto number = [&](const char* name, auto& value, const char* help) {
    command->add_option(name, value, help)->capture_default_str()->type_name("N");
  };
  number("--prompt-tokens", request.prompt_tokens, "the length of the prompt");
  number("--steps", request.num_steps,
         "the tokens that each sequence of a batch decodes, from an empty cache");
  number("--rounds", request.num_rounds, "timed rounds, after a prompt to warm up");
  number("--seed", request.seed, "the seed of the tokens, which are random");
  command
      ->add_option("--batch", request.batch_sizes,
                   "the numbers of sequences that are decoded together")
      ->capture_default_str()
      ->type_name("SIZES");
  command->add_flag("--json", options->is_json, "print one JSON object");
  command->footer(
      "All phases take turns. FLOPs and bytes are computed from shapes and routing.\n\n"
      "Example:\n"
      "  c2r bench model tiny_model --prompt-tokens 32 --steps 4 --rounds 1");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_bench_model(*options, open); });
  });
}

}  // namespace c2r::cli
