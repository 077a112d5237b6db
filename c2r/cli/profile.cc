// `c2r profile`: which experts a model chooses on a text.
#include "c2r/engine/profile.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/sequences.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct Options {
  ModelOptions model;
  SequenceFiles files;
  std::string output, name;
  std::int64_t window = ProfileRequest{}.window, max_tokens = 0;
};

void run_profile(const Options& options) {
  const Model model(options.model.model, options.model.plan);
  Engine engine(model, options.model.engine());
  TextCoder coder(options.model.model, model.config());
  Sequences sequences(options.files, coder);
  ProfileRequest request{
      .output = options.output,
      .model_name =
          options.name.empty()
              ? std::filesystem::path(options.model.model).lexically_normal().filename().string()
              : options.name,
      .window = std::min(options.window, model.config().max_positions)};
  if (options.max_tokens > 0) request.max_tokens = options.max_tokens;
  ProgressLine progress("profiling", "tokens");
  const auto result = profile(
      engine, [&] { return sequences.next(); }, request, progress);
  std::cout << fmt::format("{}: {} tokens in {} sequences\n", options.output, result.num_tokens,
                           result.num_sequences);
}

}  // namespace

void add_profile(CLI::App& app) {
  auto* const command = app.add_subcommand("profile", "record which experts a model chooses");
  auto options = std::make_shared<Options>();
  add_model_options(*command, options->model);
  add_sequence_files(*command, options->files);
  command->add_option("-o,--output", options->output, "the trace to write")->required();
  command
      ->add_option("--window", options->window,
                   "longer sequences are cut into pieces of so many tokens")
      ->check(in_range(1, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--max-tokens", options->max_tokens, "stop after so many; 0: never")
      ->check(in_range(0, INT64_MAX))
      ->type_name("N");
  command->add_option("--name", options->name, "the model's name in the trace, not its folder's")
      ->type_name("NAME");
  command->footer(
      "Example:\n"
      "  c2r profile model --text text.txt -o profile.safetensors");
  command->callback([options] { run_profile(*options); });
}

}  // namespace c2r::cli
