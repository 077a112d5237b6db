// `c2r score`: how likely a model finds texts.
#include "c2r/engine/score.h"

#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/sequences.h"
#include "c2r/core/error.h"
#include "c2r/engine/windows.h"

namespace c2r::cli {
namespace {

struct ScoreOptions {
  ModelOptions model;
  SequenceFiles files;
  std::string pairs;
  std::int64_t window = 1024;
  bool is_json = false;
};

// The continuation of {"context": ..., "continuation": ...} after its context. Spaces between the
// two belong to the continuation, as in lm-evaluation-harness: tokens begin with their space.
ScoreRequest parse_pair(const Json& line, TextCoder& coder, const std::string& place) {
  json_check_keys(line, {"context", "continuation"}, "a line", place);
  const Json &context = json_at(line, "context", place),
             &continuation = json_at(line, "continuation", place);
  ScoreRequest request;
  if (context.is_string()) {
    const auto& text = context.get_ref<const std::string&>();
    const auto& more = json_string(continuation, "continuation", place);
    request.tokens = coder.tokens_of(text + more, place);
    const std::size_t end = text.find_last_not_of(" \t\n\r") + 1;  // 0 if there is none
    request.first_scored = std::ssize(coder.tokens_of(text.substr(0, end), place));
  } else {
    request.tokens = coder.tokens_of(context, place);
    request.first_scored = std::ssize(request.tokens);
    for (const TokenId id : coder.tokens_of(continuation, place)) request.tokens.push_back(id);
  }
  C2R_REQUIRE(1 <= request.first_scored && request.first_scored < std::ssize(request.tokens),
              kInvalidFile, "{}: context and continuation must have a token each", place);
  return request;
}

using NextRequest = std::function<std::optional<ScoreRequest>()>;

// Windows of more than one token.
NextRequest windows_of(const ScoreOptions& options, OpenModel& open) {
  const auto sequences = std::make_shared<Sequences>(options.files, open.coder);
  const auto windows =
      std::make_shared<Windows>([sequences] { return sequences->next(); },
                                std::min(options.window, open.model.config().max_positions));
  return [windows]() -> std::optional<ScoreRequest> {
    while (auto tokens = windows->next()) {
      if (tokens->size() > 1) return ScoreRequest{.tokens = std::move(*tokens)};
    }
    return std::nullopt;
  };
}

NextRequest pairs_of(const ScoreOptions& options, OpenModel& open) {
  const auto lines = std::make_shared<JsonLines>(options.pairs);
  return [&open, lines]() -> std::optional<ScoreRequest> {
    const auto line = lines->next();
    if (!line) return std::nullopt;
    return parse_pair(*line, open.coder, lines->place());
  };
}

// Says what each request gave, or what all did.
void print_scores(Engine& engine, const NextRequest& next, bool is_json) {
  const auto progress = make_progress(engine.is_first_rank(), "scoring", "tokens");
  Score total;
  score_all(engine, next, [&](const Score& one) {
    total.add(one);
    progress->update(total.num_tokens, 0);
    if (!is_json) return;
    const Json json = {{"log_likelihood", one.log_likelihood},
                       {"num_tokens", one.num_tokens},
                       {"is_greedy", one.is_greedy}};
    std::cout << json_text(json) << "\n";
  });
  if (!engine.is_first_rank()) return;
  C2R_REQUIRE(total.num_tokens > 0, kInvalidArgument, "there is no token to score");
  if (is_json) return;
  std::cout << fmt::format("log-likelihood {:.4f} of {} tokens, perplexity {:.4f}\n",
                           total.log_likelihood, total.num_tokens, total.perplexity());
}

Work prepare_score(const ScoreOptions& options, OpenModel& open) {
  const bool has_files = !options.files.texts.empty() || !options.files.tokens.empty();
  C2R_REQUIRE(has_files == options.pairs.empty(), kInvalidArgument,
              "give --text, --tokens or both, or else --pairs");
  NextRequest next;
  if (open.is_first_rank()) next = has_files ? windows_of(options, open) : pairs_of(options, open);
  return [&options, &open, next = std::move(next)] {
    print_scores(open.engine, next, options.is_json);
  };
}

}  // namespace

void add_score(CLI::App& app) {
  auto* const command = app.add_subcommand("score", "say how likely a model finds texts");
  auto options = std::make_shared<ScoreOptions>();
  add_model_options(*command, options->model);
  add_sequence_files(*command, options->files);
  command
      ->add_option(
          "--pairs", options->pairs,
          "a file with one {\"context\": ..., \"continuation\": ...} a line, texts or token "
          "ids, of which the continuation is scored")
      ->type_name("FILE");
  command
      ->add_option("--window", options->window,
                   "longer texts are cut into pieces of so many tokens, whose first is not scored")
      ->check(in_range(2, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command->add_flag("--json", options->is_json, "print one JSON object for each piece or pair");
  command->footer(
      "Example:\n"
      "  c2r score model --text text.txt");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_score(*options, open); });
  });
}

}  // namespace c2r::cli
