// `c2r generate`: a model continues a text, or many.
#include "c2r/engine/generate.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/text_input.h"
#include "c2r/core/error.h"
#include "c2r/engine/prompts.h"

namespace c2r::cli {
namespace {

struct GenerateOptions {
  ModelOptions model;
  std::string prompt, tokens, prompts;
  std::int64_t batch_size = 8;
  std::int64_t max_new_tokens = GenerateRequest{}.max_new_tokens;
  Sampling sampling;
};

void print_text(Engine& engine, const GenerateRequest& request, const Tokenizer& tokenizer) {
  Tokenizer::Stream stream(tokenizer, SpecialTokens::kSkip);
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

GenerateRequest request_of(const GenerateOptions& options, std::span<const TokenId> prompt) {
  return {.prompt = prompt, .max_new_tokens = options.max_new_tokens, .sampling = options.sampling};
}

// The one prompt, and what is printed of what follows.
Work prepare_one(const GenerateOptions& options, OpenModel& open) {
  const Json value =
      options.tokens.empty() ? Json(options.prompt) : parse_json(options.tokens, "--tokens");
  auto prompt = open.encoder.tokens_of(value, "--tokens");
  check_request(request_of(options, prompt), open.model.config());
  return [&options, &open, prompt = std::move(prompt)] {
    if (options.tokens.empty()) {
      print_text(open.engine, request_of(options, prompt), open.encoder.tokenizer());
    } else {
      print_generated(open.engine, request_of(options, prompt));
    }
  };
}

void print_json(std::span<const TokenId> text, bool is_text, TextEncoder& encoder) {
  Json json;
  if (is_text) {
    json["text"] = encoder.tokenizer().decode(text, SpecialTokens::kSkip);
  } else {
    json["tokens"] = std::vector(text.begin(), text.end());
  }
  std::cout << json_text(json) << "\n" << std::flush;
}

// All prompts of a file together. A line is printed once it and those before it are known.
Work prepare_many(const GenerateOptions& options, OpenModel& open) {
  // The requests borrow the prompts' tokens.
  const auto prompts = std::make_shared<const std::vector<Prompt>>(
      read_prompts(options.prompts, open.encoder, read_text_input));
  const auto requests =
      generate_requests(*prompts, options.max_new_tokens, options.sampling, open.model.config());
  return [&options, &open, prompts, requests] {
    generate_in_order(open.engine, requests, options.batch_size,
                      [&](std::size_t request, std::span<const TokenId> text) {
                        print_json(text, (*prompts)[request].is_text, open.encoder);
                      });
  };
}

Work prepare_generate(const GenerateOptions& options, OpenModel& open) {
  const auto num_given =
      !options.prompt.empty() + !options.tokens.empty() + !options.prompts.empty();
  C2R_REQUIRE(num_given == 1, kInvalidArgument, "give one of --prompt, --tokens and --prompts");
  C2R_REQUIRE(options.sampling.top_p == 1 || options.sampling.temperature > 0, kInvalidArgument,
              "--top-p is of draws, and needs a --temperature above 0");
  if (!open.is_first_rank()) return [&] { (void)generate(open.engine, {}); };
  return options.prompts.empty() ? prepare_one(options, open) : prepare_many(options, open);
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
  command
      ->add_option("--prompts", options->prompts,
                   "a file with one prompt a line, a JSON string or array of token ids; one JSON "
                   "object with \"text\" or \"tokens\" is printed for each; - is standard input")
      ->type_name("FILE");
  command
      ->add_option("--batch", options->batch_size,
                   "so many of them grow together; a text is the same in any batch")
      ->check(in_range(1, 1 << 12))
      ->capture_default_str()
      ->type_name("N");
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
      ->check(in_range(0, INT64_MAX))
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
