// `c2r score`: how likely a model finds texts.
#include "c2r/engine/score.h"

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
  std::string pairs;
  std::int64_t window = 1024;
  bool is_json = false;
};

struct Request {
  std::vector<TokenId> tokens;
  std::int64_t first_scored = 1;
};

// The continuation of {"context": ..., "continuation": ...} after its context. Spaces between the
// two belong to the continuation, as in lm-evaluation-harness: tokens begin with their space.
Request parse_pair(const Json& line, TextCoder& coder, const std::string& place) {
  json_check_keys(line, {"context", "continuation"}, "a line", place);
  const Json &context = json_at(line, "context", place),
             &continuation = json_at(line, "continuation", place);
  Request request;
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

// Scores requests and says what each gave, or what all did.
class Scorer {
 public:
  Scorer(Engine& engine, bool is_json) : engine_(engine), is_json_(is_json) {}

  void add(std::span<const TokenId> tokens, std::int64_t first_scored) {
    const Score one = score(engine_, tokens, first_scored);
    total_.add(one);
    num_tokens_ += std::ssize(tokens);
    progress_.update(num_tokens_, 0);
    if (!is_json_) return;
    const Json json = {{"log_likelihood", one.log_likelihood},
                       {"num_tokens", one.num_tokens},
                       {"is_greedy", one.is_greedy}};
    std::cout << json.dump() << "\n";
  }

  void finish() const {
    C2R_REQUIRE(total_.num_tokens > 0, kInvalidArgument, "there is no token to score");
    if (is_json_) return;
    std::cout << fmt::format("log-likelihood {:.4f} of {} tokens, perplexity {:.4f}\n",
                             total_.log_likelihood, total_.num_tokens, total_.perplexity());
  }

 private:
  Engine& engine_;
  bool is_json_;
  Score total_;
  std::int64_t num_tokens_ = 0;
  ProgressLine progress_{"scoring", "tokens"};
};

void run_score(const Options& options) {
  const bool has_files = !options.files.texts.empty() || !options.files.tokens.empty();
  C2R_REQUIRE(has_files == options.pairs.empty(), kInvalidArgument,
              "give either --pairs, or --text and --tokens");
  const Model model(options.model.model, options.model.plan);
  Engine engine(model, options.model.engine());
  TextCoder coder(options.model.model, model.config());
  Scorer scorer(engine, options.is_json);
  if (has_files) {
    const auto window =
        static_cast<std::size_t>(std::min(options.window, model.config().max_positions));
    Sequences sequences(options.files, coder);
    while (const auto sequence = sequences.next()) {
      for (std::span<const TokenId> rest = *sequence; rest.size() > 1;) {
        const std::size_t count = std::min(window, rest.size());
        scorer.add(rest.first(count), 1);
        rest = rest.subspan(count);
      }
    }
  } else {
    JsonLines lines(options.pairs);
    while (const auto line = lines.next()) {
      const Request request = parse_pair(*line, coder, lines.place());
      scorer.add(request.tokens, request.first_scored);
    }
  }
  scorer.finish();
}

}  // namespace

void add_score(CLI::App& app) {
  auto* const command = app.add_subcommand("score", "say how likely a model finds texts");
  auto options = std::make_shared<Options>();
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
  command->callback([options] { run_score(*options); });
}

}  // namespace c2r::cli
