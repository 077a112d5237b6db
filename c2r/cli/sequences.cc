#include "c2r/cli/sequences.h"

#include <algorithm>

#include "c2r/cli/text_input.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

enum class TextForm { kText, kJsonLines };

// As the name says, with or without ".xz".
TextForm form_of(std::string_view path) {
  if (path.ends_with(".xz")) path.remove_suffix(3);
  C2R_REQUIRE(!path.ends_with(".json"), kInvalidArgument,
              "{}: is JSON, not text; give {{\"text\": \"...\"}} a line in a file called *.jsonl",
              path);
  const bool has_lines = path.ends_with(".jsonl") || path.ends_with(".ndjson");
  return has_lines ? TextForm::kJsonLines : TextForm::kText;
}

}  // namespace

const Tokenizer& TextCoder::tokenizer() {
  if (!tokenizer_) {
    tokenizer_.emplace(Tokenizer::load(folder_));
    C2R_REQUIRE(tokenizer_->vocab_size() <= config_.vocab_size, kInvalidFile,
                "{}: the tokenizer has {} tokens, but config.json says vocab_size = {}", folder_,
                tokenizer_->vocab_size(), config_.vocab_size);
  }
  return *tokenizer_;
}

std::vector<TokenId> TextCoder::tokens_of(const Json& value, std::string_view place) {
  if (value.is_string()) return tokenizer().encode(value.get_ref<const std::string&>());
  std::vector<TokenId> ids;
  for (const Json& id : json_array(value, "the list of tokens", place)) {
    ids.push_back(TokenId{
        static_cast<std::int32_t>(json_integer(id, 0, config_.vocab_size - 1, "a token", place))});
  }
  return ids;
}

JsonLines::JsonLines(const std::string& path) : path_(path), text_(read_text_input(path)) {}

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

void add_sequence_files(CLI::App& command, SequenceFiles& files) {
  command
      .add_option("--text", files.texts,
                  "files with a text each, or *.jsonl (or .ndjson) with one {\"text\": \"...\"} a "
                  "line; also as .xz; - is a text from standard input")
      ->type_name("FILES");
  command
      .add_option("--tokens", files.tokens,
                  "files with one JSON array of token ids a line, also as .xz; - is standard input")
      ->type_name("FILES");
}

Sequences::Sequences(const SequenceFiles& files, TextCoder& coder) : files_(files), coder_(coder) {
  C2R_REQUIRE(!files.texts.empty() || !files.tokens.empty(), kInvalidArgument,
              "there is no file; give --text or --tokens");
  for (const std::string& path : files.texts) (void)form_of(path);
  C2R_REQUIRE(std::ranges::count(files.texts, "-") + std::ranges::count(files.tokens, "-") <= 1,
              kInvalidArgument, "standard input can be read once only");
}

std::optional<std::vector<TokenId>> Sequences::next() {
  for (;;) {
    const std::size_t num_texts = files_.texts.size();
    if (lines_) {
      if (const auto line = lines_->next()) {
        const std::string place = lines_->place();
        place_.line = lines_->line();
        if (next_file_ > num_texts)
          return coder_.tokens_of(json_array(*line, "a line", place), place);
        return coder_.tokens_of(json_string(json_at(*line, "text", place), "text", place), place);
      }
      lines_.reset();
    }
    if (next_file_ == num_texts + files_.tokens.size()) return std::nullopt;
    const std::size_t file = next_file_++;
    const std::string& path =
        file < num_texts ? files_.texts[file] : files_.tokens[file - num_texts];
    place_ = {.input = path};
    if (file < num_texts && form_of(path) == TextForm::kText) {
      return coder_.tokenizer().encode(read_text_input(path));
    }
    lines_.emplace(path);
  }
}

}  // namespace c2r::cli
