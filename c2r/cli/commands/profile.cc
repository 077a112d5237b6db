// `c2r profile`: records which experts a model chooses for texts.
#include "c2r/engine/profile.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/output.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/text_input.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct ProfileOptions {
  ModelOptions model;
  SequenceFiles files;
  std::string output, name;
  std::int64_t window = ProfileRequest{}.window, max_tokens = 0;
  bool records_token_ids = false;
};

std::vector<std::string> inputs_of(const ProfileOptions& options) {
  std::vector<std::string> inputs{options.model.model, options.model.plan};
  inputs.insert(inputs.end(), options.files.texts.begin(), options.files.texts.end());
  inputs.insert(inputs.end(), options.files.tokens.begin(), options.files.tokens.end());
  return inputs;
}

Work prepare_profile(const ProfileOptions& options, OpenModel& open) {
  ProfileRequest request{
      .output = options.output,
      .model_name =
          options.name.empty()
              ? std::filesystem::path(options.model.model).lexically_normal().filename().string()
              : options.name,
      .window = std::min(options.window, open.model.config().max_positions),
      .records_token_ids = options.records_token_ids};
  if (options.max_tokens > 0) request.max_tokens = options.max_tokens;
  check_request(request, open.model.config());
  if (open.is_first_rank()) check_output(options.output, inputs_of(options));
  check_sequence_files(options.files);
  auto sequences = std::make_shared<SequenceReader>(options.files, open.encoder, read_text_input);
  return [&open, request, sequences] {
    const auto progress = make_progress(open.engine.is_first_rank(), "profiling", "tokens");
    const auto result = profile(
        open.engine, [&] { return sequences->next(); }, request, *progress);
    if (!open.is_first_rank()) return;
    std::cout << fmt::format("{}: {} tokens in {} sequences\n", request.output.string(),
                             result.num_tokens, result.num_sequences);
  };
}

}  // namespace

void add_profile(CLI::App& app) {
  auto* const command = app.add_subcommand("profile", "record which experts a model chooses");
  auto options = std::make_shared<ProfileOptions>();
  add_model_options(*command, options->model);
  add_sequence_files(*command, options->files);
  add_output(*command, options->output, "the trace to write")->required();
  command
      ->add_option("--window", options->window, "longer sequences are cut into parts of N tokens")
      ->check(in_range(1, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--max-tokens", options->max_tokens, "stop after N tokens; 0: never")
      ->check(in_range(0, INT64_MAX))
      ->type_name("N");
  command
      ->add_option("--model-name", options->name,
                   "the name of the model in the trace; default is the name of its folder")
      ->type_name("NAME");
  command->add_flag("--token-ids", options->records_token_ids,
                    "also record the token ids; the trace then contains the text");
  command->footer(
      "Example:\n"
      "  c2r profile model --text text.txt -o profile.safetensors");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_profile(*options, open); });
  });
}

}  // namespace c2r::cli
