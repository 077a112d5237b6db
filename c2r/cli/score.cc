// `c2r score`: how likely a model finds texts.
#include "c2r/engine/score.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string tokens;
  bool is_json = false;
};

struct Request {
  std::vector<std::int32_t> tokens;
  std::int64_t first_scored = 1;
};

// An array, all of which is scored, or {"context": [...], "continuation": [...]}.
Request parse_request(const Json& line, const ModelConfig& config, const std::string& place) {
  if (line.is_array()) return {.tokens = token_ids(line, config, place)};
  json_check_keys(line, {"context", "continuation"}, "a line", place);
  Request request{.tokens = token_ids(json_at(line, "context", place), config, place)};
  request.first_scored = std::ssize(request.tokens);
  const auto continuation = token_ids(json_at(line, "continuation", place), config, place);
  request.tokens.insert(request.tokens.end(), continuation.begin(), continuation.end());
  return request;
}

void run_score(const Options& options) {
  const Model model(options.model.model, options.model.plan);
  Engine engine(model, options.model.engine());
  JsonLines lines(options.tokens);
  ProgressLine progress("scoring", "tokens");
  Score total;
  std::int64_t num_tokens = 0;
  while (const auto line = lines.next()) {
    const Request request = parse_request(*line, model.config(), lines.place());
    C2R_REQUIRE(request.first_scored >= 1 && !request.tokens.empty(), kInvalidFile,
                "{}: nothing stands before the first scored token", lines.place());
    const Score one = score(engine, request.tokens, request.first_scored);
    total.add(one);
    num_tokens += std::ssize(request.tokens);
    progress.update(num_tokens, 0);
    if (options.is_json) {
      const Json json = {{"log_likelihood", one.log_likelihood},
                         {"num_tokens", one.num_tokens},
                         {"is_greedy", one.is_greedy}};
      std::cout << json.dump() << "\n";
    }
  }
  C2R_REQUIRE(total.num_tokens > 0, kInvalidFile, "{}: has no token to score", options.tokens);
  if (options.is_json) return;
  std::cout << fmt::format("log-likelihood {:.4f} of {} tokens, perplexity {:.4f}\n",
                           total.log_likelihood, total.num_tokens, total.perplexity());
}

}  // namespace

void add_score(CLI::App& app) {
  auto* const command = app.add_subcommand("score", "say how likely a model finds texts");
  auto options = std::make_shared<Options>();
  add_model_options(*command, options->model);
  command
      ->add_option("--tokens", options->tokens,
                   "a file with one JSON array of token ids a line, or one object with context and "
                   "continuation, of which the continuation is scored")
      ->required()
      ->type_name("FILE");
  command->add_flag("--json", options->is_json, "print one JSON object for each line");
  command->footer(
      "Example:\n"
      "  c2r score tiny_model --tokens tokens.jsonl");
  command->callback([options] { run_score(*options); });
}

}  // namespace c2r::cli
