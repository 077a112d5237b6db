// `c2r generate`: continues one text or many with a model.
#include "c2r/engine/generate.h"

#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/printable.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/text_input.h"
#include "c2r/core/error.h"
#include "c2r/engine/requests/prompts.h"
#include "c2r/tokenizer/stop_texts.h"

namespace c2r::cli {
namespace {

struct GenerateOptions {
  ModelOptions model;
  std::string prompt, tokens, prompts;
  std::int64_t batch_size = 8;
  std::int64_t max_new_tokens = GenerateRequest{}.max_new_tokens;
  std::vector<std::string> stops;
  bool leaves_out_template = false;
  Sampling sampling;
};

// The text of tokens that come one by one, up to a stop text.
class StoppedText {
 public:
  StoppedText(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : stream_(tokenizer, SpecialTokens::kSkip), stops_(stops) {}

  std::string push(TokenId token) { return stops_.push(stream_.push(token)); }
  std::string finish() {
    const std::string last = stops_.push(stream_.finish());
    return last + stops_.finish();
  }
  bool has_stopped() const { return stops_.has_stopped(); }

 private:
  Tokenizer::Stream stream_;
  StopTexts stops_;
};

void print_text(Engine& engine, GenerateRequest request, const Tokenizer& tokenizer,
                const std::vector<std::string>& stops) {
  StoppedText text(tokenizer, stops);
  request.is_last = [&](TokenId token) {
    std::cout << text.push(token) << std::flush;
    return text.has_stopped();
  };
  (void)generate(engine, request);
  std::cout << text.finish() << "\n";
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

// Ends a text of tokens with the one that completes a stop text.
void end_at_stops(const GenerateOptions& options, OpenModel& open, GenerateRequest& request) {
  if (options.stops.empty()) return;
  const auto text = std::make_shared<StoppedText>(open.encoder.tokenizer(), options.stops);
  request.is_last = [text](TokenId token) {
    (void)text->push(token);
    return text->has_stopped();
  };
}

// Prepares the continuation of --prompt or --tokens.
Work prepare_one(const GenerateOptions& options, OpenModel& open) {
  const Json value =
      options.tokens.empty() ? Json(options.prompt) : parse_json(options.tokens, "--tokens");
  auto prompt = open.encoder.tokens_of(value, "--tokens");
  check_request(request_of(options, prompt), open.model.config());
  return [&options, &open, prompt = std::move(prompt)] {
    if (options.tokens.empty()) {
      print_text(open.engine, request_of(options, prompt), open.encoder.tokenizer(), options.stops);
    } else {
      GenerateRequest request = request_of(options, prompt);
      end_at_stops(options, open, request);
      print_generated(open.engine, request);
    }
  };
}

std::string text_of(std::span<const TokenId> tokens, const Tokenizer& tokenizer,
                    const std::vector<std::string>& stops) {
  StoppedText stopped(tokenizer, stops);
  std::string text;
  for (const TokenId token : tokens) text += stopped.push(token);
  return text + stopped.finish();
}

void print_json(const GenerateOptions& options, std::span<const TokenId> tokens, bool is_text,
                TextEncoder& encoder) {
  Json json;
  if (is_text) {
    json["text"] = text_of(tokens, encoder.tokenizer(), options.stops);
  } else {
    json["tokens"] = std::vector(tokens.begin(), tokens.end());
  }
  std::cout << json_text(json) << "\n" << std::flush;
}

// Prepares the continuation of all prompts of a file together. A line is printed once its text and
// those of all lines before it are complete.
Work prepare_many(const GenerateOptions& options, OpenModel& open) {
  // The requests borrow the prompts' tokens.
  const auto prompts = std::make_shared<const std::vector<Prompt>>(
      read_prompts(options.prompts, open.encoder, read_text_input));
  auto requests =
      generate_requests(*prompts, options.max_new_tokens, options.sampling, open.model.config());
  for (GenerateRequest& request : requests) end_at_stops(options, open, request);
  return [&options, &open, prompts, requests = std::move(requests)] {
    const auto progress = make_progress(open.is_first_rank(), "generating", "tokens");
    const auto print = [&](std::size_t request, std::span<const TokenId> text) {
      print_json(options, text, (*prompts)[request].is_text, open.encoder);
    };
    generate_in_order(open.engine, requests, options.batch_size, print, *progress);
  };
}

// Chat models ask for draws that c2r makes only if its options say so.
void print_unused_settings(const ModelConfig& config, const Sampling& sampling) {
  std::vector<std::string> unused = config.unused_settings;
  const auto is_chosen = [&](std::string_view setting) {
    return sampling.temperature > 0 &&
           (setting.starts_with("do_sample ") || setting.starts_with("temperature ") ||
            setting.starts_with("top_p "));
  };
  std::erase_if(unused, is_chosen);
  if (unused.empty()) return;
  std::cerr << printable(fmt::format(
                   "c2r generate: of generation_config.json only eos_token_id is used, not {}; see "
                   "--temperature and --top-p",
                   fmt::join(unused, ", ")))
            << "\n";
}

Work prepare_generate(const GenerateOptions& options, OpenModel& open) {
  const auto num_given =
      !options.prompt.empty() + !options.tokens.empty() + !options.prompts.empty();
  C2R_REQUIRE(num_given == 1, kInvalidArgument, "give one of --prompt, --tokens and --prompts");
  C2R_REQUIRE(options.sampling.top_p == 1 || options.sampling.temperature > 0, kInvalidArgument,
              "--top-p is of draws, and needs a --temperature above 0");
  for (const std::string& stop : options.stops) {
    C2R_REQUIRE(!stop.empty(), kInvalidArgument, "--stop must not be empty");
  }
  open.prints_json = !options.prompts.empty();
  if (!open.is_first_rank()) return [&] { (void)generate(open.engine, {}); };
  if (options.leaves_out_template) open.encoder.set_template(Template::kNone);
  Work work = options.prompts.empty() ? prepare_one(options, open) : prepare_many(options, open);
  return [&options, &open, work = std::move(work)] {
    print_unused_settings(open.model.config(), options.sampling);
    work();
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
                   "the prompt as a JSON array of token ids; token ids are printed, too")
      ->type_name("IDS");
  command
      ->add_option(
          "--prompts", options->prompts,
          "a file with one prompt a line, a JSON string or an array of token ids; prints one "
          "JSON object with \"text\" or \"tokens\" for each, and on several ranks a last one with "
          "\"run\"; - is standard input")
      ->type_name("FILE");
  command
      ->add_option(
          "--batch", options->batch_size,
          "the number of texts that are continued together; a text is the same in any batch")
      ->check(in_range(1, 1 << 12))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--max-new-tokens", options->max_new_tokens, "stop after N tokens")
      ->check(in_range(1, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("--stop", options->stops,
                   "end a text before this one, which is not printed; ids are printed up to the "
                   "token that completes it. May be given several times")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  command->add_flag("--no-template", options->leaves_out_template,
                    "leave out the tokens that the model expects around a text, as for a prompt "
                    "that has them already");
  command
      ->add_option("--temperature", options->sampling.temperature,
                   "0: always take the likeliest token; else divide the logits by T and draw")
      ->capture_default_str()
      ->type_name("T");
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "draw among the likeliest tokens that together have the probability P")
      ->capture_default_str()
      ->type_name("P");
  command->add_option("--seed", options->sampling.seed, "the seed of the draws")
      ->check(in_range(0, INT64_MAX))
      ->capture_default_str()
      ->type_name("N");
  command->footer(
      "Texts end at the tokens of eos_token_id in generation_config.json, or in config.json if "
      "that file does not exist. Chat templates are rendered by the Python package:\n"
      "  python -m c2r generate FOLDER --chat TEXT\n"
      "Example:\n"
      "  c2r generate model --prompt Hello --max-new-tokens 8");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_generate(*options, open); });
  });
}

}  // namespace c2r::cli
