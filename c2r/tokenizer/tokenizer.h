// Turns text into token ids and back, exactly as Hugging Face's tokenizers do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

/// Whether encode() adds the tokens that a model expects around each text, such as <s> before it.
enum class Template {
  kApply,  // adds the tokens that the tokenizer's files ask for
  kNone,
};

/// Whether decode() keeps the text of special tokens, such as <|endoftext|>.
enum class SpecialTokens { kKeep, kSkip };

struct TokenizerSpec;  // see tokenizer_spec.h

/// A model's tokenizer. Immutable: threads may share one.
///
///     const Tokenizer tokenizer = Tokenizer::load("model");
///     const std::vector<TokenId> ids = tokenizer.encode("Good morning");
///     tokenizer.decode(ids, SpecialTokens::kSkip) == "Good morning";
class Tokenizer {
  struct Impl;

 public:
  /// Reads the tokenizer of a checkpoint's folder: `tokenizer.json` if it exists (byte-level BPE,
  /// or BPE with byte fallback as in LLaMA), otherwise `tokenizer.model` (SentencePiece BPE). The
  /// tokens around a text also depend on `tokenizer_config.json`, in the cases in which
  /// transformers reads them from there. docs/tokenizers.md says what is supported and what is
  /// ignored.
  ///
  /// @throws Error(kInvalidFile) for files that are missing or broken, Error(kUnsupported) for a
  ///         setting that c2r does not support; it names the file, the key and the value
  /// Cost: some 0.5 s for 150,000 tokens, and 40 MB.
  static Tokenizer load(const std::filesystem::path& folder);

  explicit Tokenizer(TokenizerSpec spec);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// @param text any bytes. Invalid UTF-8 is replaced by U+FFFD first, one for each maximal
  ///        subpart, as by Python's `errors="replace"`. The texts of added tokens become those
  ///        tokens.
  /// @returns the ids of `text`
  /// @throws Error(kUnsupported) if a pattern of the tokenizer takes too long on this text,
  ///         Error(kInvalidArgument) if the pre-tokenizer leaves 2^31 characters in one piece
  /// Cost: O(text.size()), some 20 MB/s; memory in proportion to the longest piece that the
  /// pre-tokenizer leaves.
  std::vector<TokenId> encode(std::string_view text, Template applied = Template::kApply) const;

  /// The reverse of encode(), up to normalization.
  /// @returns the text of `ids`; invalid UTF-8 becomes U+FFFD. Ids from vocab_size() on, such as
  ///          rows that pad a model's embedding, have no text.
  /// @throws Error(kInvalidArgument) for a negative id
  std::string decode(std::span<const TokenId> ids, SpecialTokens special) const;

  /// @returns the largest id plus 1. The embedding of a model may be padded to more rows.
  std::int64_t vocab_size() const;

  /// The token that stands before a text whose first token is to be predicted.
  /// @returns bos_token of tokenizer_config.json, or else its eos_token; nothing if it has neither
  std::optional<TokenId> first_token() const;

  /// Decodes tokens one by one, for text that is shown while it is generated. The results of all
  /// calls of push() and of finish(), joined, are decode() of all ids. push() holds back the bytes
  /// of a character that later tokens may complete, so it returns whole characters, possibly none.
  /// Must not outlive the tokenizer, which may be moved.
  class Stream {
   public:
    Stream(const Tokenizer& tokenizer, SpecialTokens special);
    /// @throws Error(kInvalidArgument) for a negative id
    std::string push(TokenId id);
    std::string finish();

   private:
    std::string take_characters();
    std::string take_bytes();
    std::string at_start(std::string text);

    const Impl* impl_;
    SpecialTokens special_;
    std::string held_;  // bytes that are held back
    bool is_at_start_ = true;
  };

 private:
  std::unique_ptr<const Impl> impl_;
};

}  // namespace c2r
