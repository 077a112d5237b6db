// `c2r generate`: a model continues a text, or many.
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
  auto prompt = open.coder.tokens_of(value, "--tokens");
  check_request(request_of(options, prompt), open.model.config());
  return [&options, &open, prompt = std::move(prompt)] {
    if (options.tokens.empty()) {
      print_text(open.engine, request_of(options, prompt), open.coder.tokenizer());
    } else {
      print_generated(open.engine, request_of(options, prompt));
    }
  };
}

struct Prompt {
  std::vector<TokenId> tokens;
  bool is_text = false;
};

std::vector<Prompt> read_prompts(const GenerateOptions& options, OpenModel& open) {
  std::vector<Prompt> prompts;
  JsonLines lines(options.prompts);
  while (const auto line = lines.next()) {
    prompts.push_back({open.coder.tokens_of(*line, lines.place()), line->is_string()});
    try {
      check_request(request_of(options, prompts.back().tokens), open.model.config());
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: {}", lines.place(), e.what());
    }
  }
  C2R_REQUIRE(!prompts.empty(), kInvalidArgument, "{}: there is no prompt", options.prompts);
  return prompts;
}

std::string json_line(const std::vector<TokenId>& text, bool is_text, TextCoder& coder) {
  Json json;
  if (is_text) {
    json["text"] = coder.tokenizer().decode(text, SpecialTokens::kSkip);
  } else {
    json["tokens"] = text;
  }
  return json_text(json) + "\n";
}

// All prompts of a file together. A line is printed once it and those before it are known.
Work prepare_many(const GenerateOptions& options, OpenModel& open) {
  return [&options, &open, prompts = read_prompts(options, open)] {
    std::vector<GenerateRequest> requests;
    requests.reserve(prompts.size());
    for (const Prompt& prompt : prompts) requests.push_back(request_of(options, prompt.tokens));
    std::vector<std::vector<TokenId>> texts(prompts.size());
    std::vector<bool> is_done(prompts.size());
    std::size_t next = 0;
    (void)generate_all(
        open.engine, requests, options.batch_size, [&](std::size_t i, TokenId token, bool is_last) {
          texts[i].push_back(token);
          is_done[i] = is_last;
          for (; next < prompts.size() && is_done[next]; ++next) {
            std::cout << json_line(texts[next], prompts[next].is_text, open.coder) << std::flush;
          }
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
