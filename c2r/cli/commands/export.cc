// `c2r export`: writes the placement of a plan in the form that another engine loads.
#include "c2r/plan/engines/export.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/output.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct ExportFileOptions {
  std::string plan, target, output, backend;
  std::int32_t num_hidden_layers = 0;
};

void export_file(const ExportFileOptions& options) {
  const ExportTarget target = find_export_target(options.target);
  C2R_REQUIRE(options.num_hidden_layers == 0 || target.file.has_hidden_layer_rows, kInvalidArgument,
              "--num-hidden-layers makes no difference to {}, only to sglang", target.file.name);
  check_output(options.output, {options.plan});
  if (!options.output.empty()) check_export_path(target, options.output, "--output");
  ExportOptions how{.backend = options.backend};
  if (options.num_hidden_layers > 0) how.num_hidden_layers = options.num_hidden_layers;
  const Plan plan = read_plan(options.plan);
  const Export file = export_plan(target, plan, how);
  write_result(options.output, file.bytes);
  for (const std::string& warning : file.warnings) std::cerr << "warning: " << warning << "\n";
  if (options.output.empty()) return;
  std::cerr << fmt::format("load it on {} ranks with: {}\n", plan.cluster.ep_size(),
                           export_usage(target, plan, options.output));
  std::cerr << fmt::format(
      "a placement does not change the model's answers, only which rank computes them; to go back, "
      "{}\n",
      target.file.rollback);
}

std::string targets_text() {
  std::string text = "Targets, and the ends of the names of their files:\n";
  for (const ExportTarget& target : export_targets()) {
    text += fmt::format("  {:<16}{}\n", target.file.name, target.file.suffix);
  }
  return text + "\nExample:\n  c2r export plan.json --to vllm-49572 --backend deepep_low_latency";
}

}  // namespace

void add_export(CLI::App& app) {
  auto* const command = app.add_subcommand("export", "write a plan for another engine");
  auto options = std::make_shared<ExportFileOptions>();
  command->add_option("plan", options->plan, "the plan")->required();
  std::vector<std::string> targets;
  for (const ExportTarget& target : export_targets()) targets.emplace_back(target.file.name);
  command->add_option("--to", options->target, "the format, see below")
      ->required()
      ->check(offered(targets))
      ->type_name("TARGET");
  add_output(*command, options->output, "the file to write; default is to print");
  command
      ->add_option("--num-hidden-layers", options->num_hidden_layers,
                   "sglang: the number of all layers of the model, dense ones included")
      ->check(in_range(1, INT32_MAX))
      ->type_name("N");
  command
      ->add_option(
          "--backend", options->backend,
          "the all-to-all backend of the engine, such as deepep_low_latency: warn if placement "
          "saves nothing with it")
      ->type_name("NAME");
  command->footer(targets_text());
  command->callback([options] { export_file(*options); });
}

}  // namespace c2r::cli
