// `c2r generate`: a model continues a text.
#include "c2r/engine/generate.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct GenerateOptions {
  ModelOptions model;
  std::string prompt, tokens;
  std::int64_t max_new_tokens = GenerateRequest{}.max_new_tokens;
  Sampling sampling;
};

void print_text(Engine& engine, const GenerateRequest& request, const Tokenizer& tokenizer) {
  Tokenizer::Stream stream(tokenizer);
  (void)generate(engine, request,
                 [&](TokenId token) { std::cout << stream.push(token) << std::flush; });
  std::cout << stream.finish() << "\n";
}

void print_generated(Engine& engine, const GenerateRequest& request) {
  const char* separator = "";
  (void)generate(engine, request, [&](TokenId token) {
    std::cout << separator << index(token) << std::flush;
    separator = " ";
  });
  std::cout << "\n";
}

// The prompt, and what is printed of what follows.
Work prepare_generate(const GenerateOptions& options, OpenModel& open) {
  C2R_REQUIRE(options.prompt.empty() != options.tokens.empty(), kInvalidArgument,
              "give either --prompt or --tokens");
  if (!open.is_first_rank()) return [&] { (void)generate(open.engine, {}); };
  const Json value =
      options.tokens.empty() ? Json(options.prompt) : parse_json(options.tokens, "--tokens");
  const auto request_of = [&](std::span<const TokenId> prompt) -> GenerateRequest {
    return {
        .prompt = prompt, .max_new_tokens = options.max_new_tokens, .sampling = options.sampling};
  };
  auto prompt = open.coder.tokens_of(value, "--tokens");
  check_request(request_of(prompt), open.model.config());
  return [&options, &open, request_of, prompt = std::move(prompt)] {
    if (options.tokens.empty()) {
      print_text(open.engine, request_of(prompt), open.coder.tokenizer());
    } else {
      print_generated(open.engine, request_of(prompt));
    }
  };
}

}  // namespace

void add_generate(CLI::App& app) {
  auto* const command = app.add_subcommand("generate", "continue a text with a model");
  auto options = std::make_shared<GenerateOptions>();
  add_model_options(*command, options->model);
  command->add_option("--prompt", options->prompt, "the text to continue")->type_name("TEXT");
  command
      ->add_option("--tokens", options->tokens,
                   "the prompt as a JSON array of token ids; ids are printed then")
      ->type_name("IDS");
  command->add_option("--max-new-tokens", options->max_new_tokens, "stop after so many")
      ->check(in_range(1, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("--temperature", options->sampling.temperature,
                   "0: always the likeliest token; else logits are divided by it")
      ->capture_default_str()
      ->type_name("T");
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "draw among the likeliest tokens that have this probability together")
      ->capture_default_str()
      ->type_name("P");
  command->add_option("--seed", options->sampling.seed, "of the draws")
      ->capture_default_str()
      ->type_name("N");
  command->footer(
      "Example:\n"
      "  c2r generate model --prompt Hello --max-new-tokens 8");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_generate(*options, open); });
  });
}

}  // namespace c2r::cli
