// `c2r export`: a plan's placement as another engine loads it.
#include "c2r/plan/export.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/output.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct ExportFileOptions {
  std::string plan, target, output, backend;
  std::int32_t num_hidden_layers = 0;
};

void export_file(const ExportFileOptions& options) {
  const ExportTarget& target = find_export_target(options.target);
  C2R_REQUIRE(options.num_hidden_layers == 0 || target.name == "sglang", kInvalidArgument,
              "--num-hidden-layers makes no difference to {}, only to sglang", target.name);
  check_output(options.output, {options.plan});
  ExportOptions how{.backend = options.backend};
  if (options.num_hidden_layers > 0) how.num_hidden_layers = options.num_hidden_layers;
  const Export file = export_plan(target, read_plan(options.plan), how);
  write_result(options.output, file.bytes);
  for (const std::string& warning : file.warnings) std::cerr << "warning: " << warning << "\n";
  if (!options.output.empty()) std::cerr << "load it with: " << target.usage << "\n";
}

std::string targets_text() {
  std::string text = "Targets:\n";
  for (const ExportTarget& target : export_targets()) {
    text += fmt::format("  {:<16}{}\n", target.name, target.usage);
  }
  return text + "\nExample:\n  c2r export plan.json --to vllm-49572 --backend deepep_low_latency";
}

}  // namespace

void add_export(CLI::App& app) {
  auto* const command = app.add_subcommand("export", "write a plan for another engine");
  auto options = std::make_shared<ExportFileOptions>();
  command->add_option("plan", options->plan, "the plan")->required();
  command->add_option("--to", options->target, "the engine's format, see below")
      ->required()
      ->type_name("TARGET");
  add_output(*command, options->output, "the file to write; default is to print");
  command
      ->add_option("--num-hidden-layers", options->num_hidden_layers,
                   "sglang: all layers of the model, dense ones too")
      ->check(in_range(1, INT32_MAX))
      ->type_name("N");
  command
      ->add_option("--backend", options->backend,
                   "the engine's all-to-all backend: warns if placement makes no difference to it")
      ->type_name("NAME");
  command->footer(targets_text());
  command->callback([options] { export_file(*options); });
}

}  // namespace c2r::cli
