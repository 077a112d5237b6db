// What a tokenizer's files ask for, whichever format they have: the readers fill it, Tokenizer
// carries it out.
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

/// Ids are below this, so that a file of a few bytes cannot ask for gigabytes. The largest
/// vocabularies in use have 262,144 tokens.
inline constexpr std::int64_t kMaxVocabSize = 1 << 20;

/// U+2581, which stands for a space in vocabularies of SentencePiece.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

struct Prepend {
  std::string text;
};
struct Replace {
  std::string from, to;
};
using Normalizer = std::variant<NormalForm, Prepend, Replace>;

/// Puts kMetaspace in place of spaces, and before the text.
struct Metaspace {
  enum class Prefix { kAlways, kFirst, kNever };  // kFirst: only at the very beginning
  Prefix prefix = Prefix::kAlways;
  bool prefixes_twice = false;  // also where the text begins with a space already
};

struct Split {
  SplitPattern pattern;
  bool keeps_gaps = true;  // what lies between matches is a piece too; else it is dropped
};

/// How one id becomes text.
struct DecodedToken {
  std::string bytes;
  bool is_special = false;
  bool is_fallback_byte = false;  // one byte of a character that is no token, as <0xE4>
};

struct TokenizerSpec {
  BpeModel model;
  std::vector<AddedToken> added_tokens;
  std::vector<DecodedToken> decoded;  // [vocab_size]

  // In the order in which they are applied to what lies between added tokens.
  std::vector<Normalizer> normalizers;
  std::optional<Metaspace> metaspace;
  std::vector<AddedToken> user_defined;  // SentencePiece's: found after all this, as added tokens
  std::vector<Split> splits;

  std::vector<TokenId> prefix, suffix;  // around each text
  bool strips_leading_space = false;    // decoding drops the space that encoding put first
};

TokenizerSpec read_tokenizer_json(const std::filesystem::path& path);
TokenizerSpec read_sentencepiece(const std::filesystem::path& path);

/// Changes `spec` as `tokenizer_config.json` asks for, in the way of transformers' LlamaTokenizer
/// if the tokenizer is a `tokenizer.model`.
void apply_tokenizer_config(const std::filesystem::path& path, bool is_sentencepiece,
                            TokenizerSpec& spec);

}  // namespace c2r
