// The description of a tokenizer, independent of the format of its files. The readers of files fill
// it, and Tokenizer carries it out.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/tokenizer/added_tokens.h"
#include "c2r/tokenizer/bpe.h"
#include "c2r/tokenizer/split_pattern.h"
#include "c2r/tokenizer/unicode.h"

namespace c2r {

/// All ids are below this limit, because memory grows with the largest id: a file of a few bytes
/// could ask for gigabytes otherwise. The largest vocabularies in use have 262,144 tokens.
inline constexpr std::int64_t kMaxVocabSize = 1 << 20;

/// U+2581, which replaces the space in vocabularies of SentencePiece.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

struct Prepend {
  std::string text;
};
struct Replace {
  std::string from, to;
  bool is_at_start = false;  // only where the text between added tokens begins
};
using Normalizer = std::variant<NormalForm, Prepend, Replace>;

/// Replaces spaces by kMetaspace, and puts one before the text.
struct Metaspace {
  enum class Prefix { kAlways, kFirst, kNever };  // kFirst: only at the begin of the whole text
  Prefix prefix = Prefix::kAlways;
  bool prefixes_twice = false;  // also before a text that begins with a space
};

struct Split {
  SplitPattern pattern;
  bool keeps_gaps = true;  // whether text between matches becomes pieces or is dropped
};

/// The text of one id.
struct DecodedToken {
  std::string bytes;
  bool is_special = false;
  bool is_fallback_byte =
      false;  // a token such as <0xE4>: one byte of a character that is no token
};

struct TokenizerSpec {
  BpeModel model;
  std::vector<AddedToken> added_tokens;
  std::vector<DecodedToken> decoded;  // [vocab_size]

  // In the order in which they are applied to the text between added tokens.
  std::vector<Normalizer> normalizers;
  std::optional<Metaspace> metaspace;
  std::vector<AddedToken> user_defined;  // of SentencePiece: searched after normalizing
  std::vector<Split> splits;

  std::vector<TokenId> prefix, suffix;  // around each text
  bool strips_leading_space = false;    // decoding removes a space before the first word
  std::optional<TokenId> first_token;   // bos_token of tokenizer_config.json, or else eos_token
};

/// Both read the file of one format.
/// @throws Error(kInvalidFile), Error(kUnsupported), naming the key or the piece
TokenizerSpec read_tokenizer_json(const std::filesystem::path& path);
TokenizerSpec read_sentencepiece(const std::filesystem::path& path);

/// Applies `tokenizer_config.json` to `spec`, as transformers does: in the way of its
/// LlamaTokenizer if the tokenizer was read from `tokenizer.model`, also if there is no config.
/// Without added_tokens_decoder it reads the added_tokens.json and special_tokens_map.json beside
/// it.
/// @param path the config; need not exist
/// @throws Error(kInvalidFile), Error(kUnsupported), naming the key
void apply_tokenizer_config(const std::filesystem::path& path, bool is_sentencepiece,
                            TokenizerSpec& spec);

}  // namespace c2r
