// Reads texts and JSON lines, and checks that texts are UTF-8 and token ids are the model's.
#include "c2r/engine/requests/sequence_files.h"

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/utf8.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

// Whether a file of texts has one text a line, as its name says, compressed or not.
bool has_json_lines(std::string_view given) {
  const std::string path = without_compression(given);
  C2R_REQUIRE(!path.ends_with(".json"), kInvalidArgument,
              "{}: is JSON, not text; give {{\"text\": \"...\"}} a line in a file called *.jsonl",
              path);
  return path.ends_with(".jsonl") || path.ends_with(".ndjson");
}

}  // namespace

void check_utf8(std::string_view text, const std::string& name) {
  if (is_valid_utf8(text)) return;
  C2R_REQUIRE(!text.starts_with("\x28\xB5\x2F\xFD"), kInvalidFile,
              "{}: is compressed with zstd, not text; decompress it first", name);
  C2R_REQUIRE(!text.starts_with("\x1F\x8B"), kInvalidFile,
              "{}: is compressed with gzip, not text; decompress it first", name);
  std::size_t at = 0;
  for (Utf8Unit unit; at < text.size(); at += unit.num_bytes) {
    unit = first_utf8_unit(text.substr(at));
    if (unit.kind != Utf8Kind::kCharacter) break;
  }
  C2R_THROW(kInvalidFile, "{}: is no text: at byte {} there is no UTF-8 character", name, at);
}

std::string read_utf8_file(const std::string& path) {
  std::string text = read_text_file(path);
  check_utf8(text, path);
  return text;
}

const Tokenizer& TextEncoder::tokenizer() {
  if (!tokenizer_) {
    tokenizer_.emplace(Tokenizer::load(folder_));
    C2R_REQUIRE(tokenizer_->vocab_size() <= config_.vocab_size, kInvalidFile,
                "{}: the tokenizer has {} tokens, but config.json says vocab_size = {}",
                folder_.string(), tokenizer_->vocab_size(), config_.vocab_size);
  }
  return *tokenizer_;
}

TokenId TextEncoder::first_token() {
  const auto token = tokenizer().first_token();
  C2R_REQUIRE(
      token, kInvalidFile,
      "{}: tokenizer_config.json names neither bos_token nor eos_token, one of which has to "
      "stand before a text whose first token is scored",
      folder_.string());
  return *token;
}

std::vector<TokenId> TextEncoder::tokens_of(const Json& value, std::string_view place) {
  if (value.is_string()) return tokenizer().encode(value.get_ref<const std::string&>(), template_);
  std::vector<TokenId> ids;
  for (const Json& id : json_array(value, "the list of tokens", place)) {
    ids.push_back(TokenId{
        static_cast<std::int32_t>(json_integer(id, 0, config_.vocab_size - 1, "a token", place))});
  }
  return ids;
}

JsonLines::JsonLines(const std::string& path, const TextReader& read)
    : path_(path), text_(read(path)) {}

std::optional<Json> JsonLines::next() {
  while (begin_ < text_.size()) {
    const std::size_t end = std::min(text_.find('\n', begin_), text_.size());
    const std::string_view line = std::string_view(text_).substr(begin_, end - begin_);
    begin_ = end + 1;
    ++line_;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) return parse_json(line, place());
  }
  return std::nullopt;
}

std::string JsonLines::place() const {
  return fmt::format("{}:{}", path_, line_);
}

SequenceReader::SequenceReader(const SequenceFiles& files, TextEncoder& encoder, TextReader read)
    : files_(files), encoder_(encoder), read_(std::move(read)) {
  for (const std::string& path : files.texts) (void)has_json_lines(path);
}

std::optional<std::vector<TokenId>> SequenceReader::next() {
  const std::size_t num_texts = files_.texts.size();
  for (;;) {
    if (lines_) {
      if (auto sequence = next_of_lines()) return sequence;
      lines_.reset();
    }
    if (next_file_ == num_texts + files_.tokens.size()) return std::nullopt;
    const std::size_t file = next_file_++;
    const bool is_text = file < num_texts;
    const std::string& path = is_text ? files_.texts[file] : files_.tokens[file - num_texts];
    place_ = {.input = path};
    if (is_text && !has_json_lines(path)) return encoder_.tokenizer().encode(read_(path));
    lines_.emplace(path, read_);
  }
}

// The sequence of the next line, or nothing at the end of the file.
std::optional<std::vector<TokenId>> SequenceReader::next_of_lines() {
  const auto line = lines_->next();
  if (!line) return std::nullopt;
  const std::string place = lines_->place();
  place_.line = lines_->line();
  if (next_file_ > files_.texts.size()) {
    return encoder_.tokens_of(json_array(*line, "a line", place), place);
  }
  return encoder_.tokens_of(json_string(json_at(*line, "text", place), "text", place), place);
}

}  // namespace c2r
