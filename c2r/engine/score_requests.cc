// Turns files into score requests, one at a time.
#include "c2r/engine/score_requests.h"

#include "c2r/core/error.h"

namespace c2r {

WindowRequests::WindowRequests(const SequenceFiles& files, TextEncoder& encoder,
                               std::int64_t window, const TextReader& read)
    : sequences_(files, encoder, read), windows_([this] { return sequences_.next(); }, window) {}

std::optional<PlacedScoreRequest> WindowRequests::next() {
  auto window = windows_.next();
  if (!window) return std::nullopt;
  PlacedScoreRequest request;
  request.request.tokens = std::move(window->tokens);
  request.place = sequences_.place();
  request.window_idx = window->window_idx;
  return request;
}

PairRequests::PairRequests(const std::string& path, TextEncoder& encoder, const TextReader& read)
    : path_(path), encoder_(encoder), lines_(path, read) {}

std::optional<PlacedScoreRequest> PairRequests::next() {
  const auto pair = lines_.next();
  if (!pair) return std::nullopt;
  PlacedScoreRequest request;
  request.request = parse_pair(*pair, encoder_, lines_.place());
  request.place = {.input = path_, .line = lines_.line()};
  return request;
}

ScoreRequest parse_pair(const Json& pair, TextEncoder& encoder, const std::string& place) {
  json_check_keys(pair, {"context", "continuation"}, "a line", place);
  const Json &context = json_at(pair, "context", place),
             &continuation = json_at(pair, "continuation", place);
  ScoreRequest request;
  if (context.is_string()) {
    const auto& text = context.get_ref<const std::string&>();
    const auto& more = json_string(continuation, "continuation", place);
    request.tokens = encoder.tokens_of(text + more, place);
    const std::size_t end = text.find_last_not_of(" \t\n\r") + 1;  // 0 if there is none
    request.first_scored = std::ssize(encoder.tokens_of(text.substr(0, end), place));
  } else {
    request.tokens = encoder.tokens_of(context, place);
    request.first_scored = std::ssize(request.tokens);
    const auto more = encoder.tokens_of(continuation, place);
    request.tokens.insert(request.tokens.end(), more.begin(), more.end());
  }
  C2R_REQUIRE(1 <= request.first_scored && request.first_scored < std::ssize(request.tokens),
              kInvalidFile, "{}: context and continuation must have a token each", place);
  return request;
}

}  // namespace c2r
