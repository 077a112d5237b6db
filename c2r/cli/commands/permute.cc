// `c2r permute-checkpoint`: reorders the experts of a checkpoint for engines that load no
// placement.
#include "c2r/model/permute.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/output.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct PermuteOptions {
  std::string model, plan, output;
};

void permute(const PermuteOptions& options) {
  const Model model(options.model);
  const Plan plan = read_plan(options.plan);
  {
    ProgressLine progress("writing " + options.output, "bytes");
    permute_checkpoint(model, plan, options.plan, options.output, progress);
  }
  std::cout << fmt::format("{}: experts of {} layers in the order of {}\n", options.output,
                           plan.num_layers(), options.plan);
}

}  // namespace

void add_permute(CLI::App& app) {
  auto* const command = app.add_subcommand(
      "permute-checkpoint", "put a model's experts in the order of a plan, for other engines");
  auto options = std::make_shared<PermuteOptions>();
  command->add_option("model", options->model, "folder with config.json and *.safetensors")
      ->required();
  command->add_option("--plan", options->plan, "the plan; it must have no replicas")
      ->required()
      ->type_name("FILE");
  add_output(*command, options->output, "the new folder")->required()->type_name("FOLDER");
  command->footer(
      "An engine that splits the experts in order over its ranks then has the placement of the "
      "plan.\n"
      "Example:\n"
      "  c2r permute-checkpoint tiny_model --plan tiny_plan.json -o permuted_model");
  command->callback([options] { permute(*options); });
}

}  // namespace c2r::cli
