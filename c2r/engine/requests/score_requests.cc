// Turns files into score requests, one at a time.
#include "c2r/engine/requests/score_requests.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// Space characters of Python's str.rstrip(), in UTF-8.
constexpr std::string_view kSpaces[] = {
    "\x09",         "\x0A",         "\x0B",         "\x0C",         "\x0D",
    "\x1C",         "\x1D",         "\x1E",         "\x1F",         " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

std::string_view without_spaces_at_end(std::string_view text) {
  for (;;) {
    const auto* const space = std::ranges::find_if(
        kSpaces, [&](std::string_view character) { return text.ends_with(character); });
    if (space == std::end(kSpaces)) return text;
    text.remove_suffix(space->size());
  }
}

struct ContextAndRest {
  std::vector<TokenId> context, rest;
};

// Gives an empty context its one token.
void put_first_token(ContextAndRest& parts, TextEncoder& encoder) {
  const TokenId first = encoder.first_token();
  parts.context = {first};
  if (!parts.rest.empty() && parts.rest.front() == first) parts.rest.erase(parts.rest.begin());
}

ContextAndRest encode_texts(const std::string& context, const std::string& continuation,
                            TextEncoder& encoder) {
  const Tokenizer& tokenizer = encoder.tokenizer();
  ContextAndRest parts;
  if (!context.empty()) {
    parts.context = tokenizer.encode(without_spaces_at_end(context));
    const auto whole = tokenizer.encode(context + continuation);
    const auto from = std::min(parts.context.size(), whole.size());
    parts.rest.assign(whole.begin() + static_cast<std::ptrdiff_t>(from), whole.end());
    if (!parts.context.empty()) return parts;
  } else {
    parts.rest = tokenizer.encode(continuation, Template::kNone);
  }
  put_first_token(parts, encoder);
  return parts;
}

// Leaves out tokens on the left until the model has positions for the others. The last token is
// only predicted, so it needs none.
ScoreRequest fitting(const ContextAndRest& parts, std::int64_t max_positions,
                     const std::string& place) {
  const auto& [context, rest] = parts;
  C2R_REQUIRE(std::ssize(rest) <= max_positions, kInvalidFile,
              "{}: the continuation has {} tokens, but the model has {} positions", place,
              rest.size(), max_positions);
  const std::int64_t num_kept = std::min(std::ssize(context), max_positions + 1 - std::ssize(rest));
  ScoreRequest request{.tokens = {context.end() - num_kept, context.end()},
                       .first_scored = num_kept};
  request.tokens.insert(request.tokens.end(), rest.begin(), rest.end());
  return request;
}

}  // namespace

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

RollingRequests::RollingRequests(const SequenceFiles& files, TextEncoder& encoder,
                                 std::int64_t max_inputs, std::int64_t min_context,
                                 const TextReader& read)
    : sequences_(files, encoder, read),
      windows_([this] { return sequences_.next(); }, encoder.first_token(), max_inputs,
               min_context) {}

std::optional<PlacedScoreRequest> RollingRequests::next() {
  auto window = windows_.next();
  if (!window) return std::nullopt;
  return PlacedScoreRequest{
      .request = {.tokens = std::move(window->tokens), .first_scored = window->first_scored},
      .place = sequences_.place(),
      .window_idx = window->window_idx};
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
  ContextAndRest parts;
  if (context.is_string()) {
    parts = encode_texts(context.get_ref<const std::string&>(),
                         json_string(continuation, "continuation", place), encoder);
  } else {
    parts = {encoder.tokens_of(context, place), encoder.tokens_of(continuation, place)};
    if (parts.context.empty()) put_first_token(parts, encoder);
  }
  C2R_REQUIRE(!parts.rest.empty(), kInvalidFile, "{}: the continuation must have a token", place);
  return fitting(parts, encoder.config().max_positions, place);
}

}  // namespace c2r
