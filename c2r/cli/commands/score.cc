// `c2r score`: prints the log-likelihood of texts under a model.
#include "c2r/engine/score.h"

#include <algorithm>
#include <deque>
#include <iostream>
#include <memory>
#include <span>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/text_input.h"
#include "c2r/core/error.h"
#include "c2r/engine/ranks/agreement.h"
#include "c2r/engine/requests/score_requests.h"

namespace c2r::cli {
namespace {

struct ScoreOptions {
  ModelOptions model;
  SequenceFiles files;
  std::string pairs;
  std::int64_t window = 1024;
  std::optional<std::int64_t> rolling;
  bool is_json = false;
};

using NextRequest = std::function<std::optional<PlacedScoreRequest>()>;

NextRequest next_request(const ScoreOptions& options, OpenModel& open) {
  if (!options.pairs.empty()) {
    const auto pairs = std::make_shared<PairRequests>(options.pairs, open.encoder, read_text_input);
    return [pairs] { return pairs->next(); };
  }
  check_sequence_files(options.files);
  const std::int64_t window = std::min(options.window, open.model.config().max_positions);
  if (options.rolling) {
    const auto windows = std::make_shared<RollingRequests>(options.files, open.encoder, window,
                                                           *options.rolling, read_text_input);
    return [windows] { return windows->next(); };
  }
  const auto windows =
      std::make_shared<WindowRequests>(options.files, open.encoder, window, read_text_input);
  return [windows] { return windows->next(); };
}

// The sequence and the window of a request.
struct RequestPlace {
  SequencePlace sequence;
  std::int64_t window_idx = 0;
};

void print_json(const RequestPlace& asked, const Score& score,
                std::span<const double> log_likelihoods) {
  const SequencePlace& sequence = asked.sequence;
  const Json line = sequence.line ? Json(*sequence.line) : Json();
  const Json json = {{"input", sequence.input},
                     {"line", line},
                     {"piece", asked.window_idx},
                     {"log_likelihood", score.log_likelihood},
                     {"num_tokens", score.num_tokens},
                     {"is_greedy", score.is_greedy},
                     {"token_log_likelihoods", log_likelihoods}};
  std::cout << json_text(json) << "\n";
}

// Prints the score of each request, or of all together.
void print_scores(Engine& engine, const NextRequest& next, bool is_json) {
  const auto progress = make_progress(engine.is_first_rank(), "scoring", "tokens");
  std::deque<RequestPlace> places;  // of the requests without a score yet
  const auto next_score = [&]() -> std::optional<ScoreRequest> {
    auto asked = next();
    if (!asked) return std::nullopt;
    places.push_back({std::move(asked->place), asked->window_idx});
    return std::move(asked->request);
  };
  const auto print_score = [&](const Score& score, std::span<const double> log_likelihoods) {
    if (is_json) print_json(places.front(), score, log_likelihoods);
    places.pop_front();
  };
  const Score total = score_all(engine, next_score, print_score, *progress);
  if (is_json) return;
  agree_on_errors(engine, "end of the scores", [&] {
    C2R_REQUIRE(!engine.is_first_rank() || total.num_tokens > 0, kInvalidArgument,
                "there is no token to score");
  });
  if (!engine.is_first_rank()) return;
  std::cout << fmt::format("log-likelihood {:.4f} of {} tokens, perplexity {:.4f}\n",
                           total.log_likelihood, total.num_tokens, total.perplexity());
}

Work prepare_score(const ScoreOptions& options, OpenModel& open) {
  const bool has_files = !options.files.texts.empty() || !options.files.tokens.empty();
  C2R_REQUIRE(has_files == options.pairs.empty(), kInvalidArgument,
              "give --text, --tokens or both, or else --pairs");
  C2R_REQUIRE(has_files || !options.rolling, kInvalidArgument,
              "--rolling is for --text and --tokens; --pairs has windows of its own");
  open.prints_json = options.is_json;
  NextRequest next;
  if (open.is_first_rank()) next = next_request(options, open);
  return [&options, &open, next = std::move(next)] {
    print_scores(open.engine, next, options.is_json);
  };
}

}  // namespace

void add_score(CLI::App& app) {
  auto* const command =
      app.add_subcommand("score", "print the log-likelihood of texts under a model");
  auto options = std::make_shared<ScoreOptions>();
  add_model_options(*command, options->model);
  add_sequence_files(*command, options->files);
  command
      ->add_option(
          "--pairs", options->pairs,
          "a file with one {\"context\": ..., \"continuation\": ...} a line, texts or token "
          "ids, of which the continuation is scored as lm-evaluation-harness does: spaces at the "
          "end of the context belong to it, an empty context is the tokenizer's bos_token or else "
          "eos_token, and contexts that are too long are cut on the left; - is standard input")
      ->type_name("FILE");
  command
      ->add_option(
          "--window", options->window,
          "longer texts are cut into windows of N tokens; the first token of a window is not "
          "scored")
      ->check(in_range(2, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option(
          "--rolling", options->rolling,
          "score every token of a text once, the first ones after the tokenizer's bos_token "
          "or else eos_token: windows of --window tokens overlap so that each later token "
          "has at least N before it; 1 is what lm-evaluation-harness does")
      ->check(in_range(1, 1 << 24))
      ->type_name("N");
  command->add_flag("--json", options->is_json,
                    "print one JSON object for each window or pair, in their order, see below");
  command->footer(
      "Keys of --json:\n"
      "  input, line     the file, and the line of a file of JSON lines, from 1; else null\n"
      "  piece           the window of a text longer than --window, from 0\n"
      "  log_likelihood  of all scored tokens together, as a natural logarithm\n"
      "  num_tokens      the number of scored tokens; 0 for a text of fewer than two tokens\n"
      "  is_greedy       whether each of these tokens was the likeliest one\n"
      "  token_log_likelihoods  an array: the log-likelihood of each scored token\n"
      "On several ranks a last line has the key \"run\": the speed, the bytes that were sent, and "
      "those that the plan predicts.\n"
      "Example:\n"
      "  c2r score model --text text.txt");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_score(*options, open); });
  });
}

}  // namespace c2r::cli
