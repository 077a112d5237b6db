// `c2r score`: how likely a model finds texts.
#include "c2r/engine/score.h"

#include <algorithm>
#include <deque>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/model_options.h"
#include "c2r/cli/model_run.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/sequences.h"
#include "c2r/core/error.h"

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

// A request, and what --json says of where it comes from. One of fewer than two tokens has nothing
// to score.
struct PlacedRequest {
  ScoreRequest request;
  SequencePlace place;
  std::int64_t piece = 0;

  bool is_scored() const { return request.first_scored < std::ssize(request.tokens); }
};

using NextRequest = std::function<std::optional<PlacedRequest>()>;

// The sequences of files in pieces of up to `window` tokens; an empty one is one empty piece.
class Pieces {
 public:
  Pieces(const SequenceFiles& files, TextCoder& coder, std::int64_t window)
      : sequences_(files, coder), window_(static_cast<std::size_t>(window)) {}

  std::optional<PlacedRequest> next() {
    if (begin_ >= tokens_.size()) {
      auto tokens = sequences_.next();
      if (!tokens) return std::nullopt;
      tokens_ = std::move(*tokens), begin_ = 0, piece_ = 0;
    }
    const std::size_t end = std::min(begin_ + window_, tokens_.size());
    PlacedRequest result{.place = sequences_.place(), .piece = piece_++};
    result.request.tokens.assign(tokens_.begin() + std::ptrdiff_t(begin_),
                                 tokens_.begin() + std::ptrdiff_t(end));
    begin_ = end;
    return result;
  }

 private:
  Sequences sequences_;
  std::size_t window_;
  std::vector<TokenId> tokens_;
  std::size_t begin_ = 0;
  std::int64_t piece_ = 0;
};

NextRequest sequence_pieces(const ScoreOptions& options, OpenModel& open) {
  const auto pieces = std::make_shared<Pieces>(
      options.files, open.coder, std::min(options.window, open.model.config().max_positions));
  return [pieces] { return pieces->next(); };
}

NextRequest pairs_of(const ScoreOptions& options, OpenModel& open) {
  const auto lines = std::make_shared<JsonLines>(options.pairs);
  return [&options, &open, lines]() -> std::optional<PlacedRequest> {
    const auto line = lines->next();
    if (!line) return std::nullopt;
    return PlacedRequest{.request = parse_pair(*line, open.coder, lines->place()),
                         .place = {.input = options.pairs, .line = lines->line()}};
  };
}

void print_json(const PlacedRequest& asked, const Score& score) {
  const Json line = asked.place.line ? Json(*asked.place.line) : Json();
  const Json json = {{"input", asked.place.input},     {"line", line},
                     {"piece", asked.piece},           {"log_likelihood", score.log_likelihood},
                     {"num_tokens", score.num_tokens}, {"is_greedy", score.is_greedy}};
  std::cout << json_text(json) << "\n";
}

// Requests that are not answered yet, in their order.
class Unanswered {
 public:
  explicit Unanswered(bool is_json) : is_json_(is_json) {}

  void add(PlacedRequest request) { requests_.push_back(std::move(request)); }
  // Those before the next scored one have nothing to score.
  void print_skipped() {
    for (; !requests_.empty() && !requests_.front().is_scored(); requests_.pop_front()) {
      if (is_json_) print_json(requests_.front(), {});
    }
  }
  void answer(const Score& score) {
    print_skipped();
    if (is_json_) print_json(requests_.front(), score);
    requests_.pop_front();
    print_skipped();
  }

 private:
  bool is_json_;
  std::deque<PlacedRequest> requests_;
};

// Says what each request gave, or what all did.
void print_scores(Engine& engine, const NextRequest& next, bool is_json) {
  const auto progress = make_progress(engine.is_first_rank(), "scoring", "tokens");
  Score total;
  Unanswered unanswered(is_json);
  const auto next_scored = [&]() -> std::optional<ScoreRequest> {
    while (auto asked = next()) {
      unanswered.add(*asked);
      if (asked->is_scored()) return std::move(asked->request);
    }
    return std::nullopt;
  };
  score_all(engine, next_scored, [&](const Score& one) {
    total.add(one);
    progress->update(total.num_tokens, 0);
    unanswered.answer(one);
  });
  if (!engine.is_first_rank()) return;
  unanswered.print_skipped();
  if (is_json) return;
  C2R_REQUIRE(total.num_tokens > 0, kInvalidArgument, "there is no token to score");
  std::cout << fmt::format("log-likelihood {:.4f} of {} tokens, perplexity {:.4f}\n",
                           total.log_likelihood, total.num_tokens, total.perplexity());
}

Work prepare_score(const ScoreOptions& options, OpenModel& open) {
  const bool has_files = !options.files.texts.empty() || !options.files.tokens.empty();
  C2R_REQUIRE(has_files == options.pairs.empty(), kInvalidArgument,
              "give --text, --tokens or both, or else --pairs");
  NextRequest next;
  if (open.is_first_rank())
    next = has_files ? sequence_pieces(options, open) : pairs_of(options, open);
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
          "ids, of which the continuation is scored; - is standard input")
      ->type_name("FILE");
  command
      ->add_option("--window", options->window,
                   "longer texts are cut into pieces of so many tokens, whose first is not scored")
      ->check(in_range(2, 1 << 24))
      ->capture_default_str()
      ->type_name("N");
  command->add_flag("--json", options->is_json,
                    "print one JSON object for each piece or pair, in their order, see below");
  command->footer(
      "Keys of --json:\n"
      "  input, line     the file, and the line of a file of JSON lines, from 1; else null\n"
      "  piece           of a text longer than --window, from 0\n"
      "  log_likelihood  natural logarithm, of all scored tokens together\n"
      "  num_tokens      that were scored; 0 of a text of fewer than two tokens\n"
      "  is_greedy       whether each of them was the likeliest one\n"
      "Example:\n"
      "  c2r score model --text text.txt");
  command->callback([options] {
    run_model(options->model, [&](OpenModel& open) { return prepare_score(*options, open); });
  });
}

}  // namespace c2r::cli
