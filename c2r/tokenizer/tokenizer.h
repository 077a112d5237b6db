// Text to token ids and back, exactly as Hugging Face's tokenizers do it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

/// What encode() does besides the text: models are trained with, say, a token before each text.
enum class Template {
  kApply,  // add the tokens that the tokenizer's files put around a text
  kNone,
};

/// What decode() does with special tokens, like <|endoftext|>.
enum class SpecialTokens { kKeep, kSkip };

struct TokenizerSpec;  // what the files ask for

/// A model's tokenizer. Immutable: threads may share one.
///
///     const Tokenizer tokenizer = Tokenizer::load("model");
///     const std::vector<TokenId> ids = tokenizer.encode("Good morning");
///     tokenizer.decode(ids, SpecialTokens::kSkip) == "Good morning";
class Tokenizer {
  struct Impl;

 public:
  /// Reads the tokenizer of a checkpoint's folder: `tokenizer.json` if it has one (byte-level BPE,
  /// or BPE with byte fallback as LLaMA's), else `tokenizer.model` (SentencePiece BPE). Which
  /// tokens surround a text is taken from `tokenizer_config.json` too, where that is what
  /// transformers does. docs/tokenizers.md says what is supported and what is ignored.
  ///
  /// @throws Error(kInvalidFile) for files that are missing or broken, Error(kUnsupported) for a
  ///         setting that c2r does not have, with the file, the key and the value
  /// Cost: some 0.5 s for 150,000 tokens, and 40 MB.
  static Tokenizer load(const std::filesystem::path& folder);

  explicit Tokenizer(TokenizerSpec spec);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// The ids of `text`. Broken UTF-8 is replaced by U+FFFD first, one for each maximal subpart, as
  /// Python's `errors="replace"` does. Special tokens that the text spells out become special
  /// tokens. Cost: O(text), some 20 MB/s; memory in proportion to the longest stretch that the
  /// pre-tokenizer leaves in one piece.
  /// @throws Error(kUnsupported) if a pattern of the tokenizer takes too long on this text,
  ///         Error(kInvalidArgument) if the pre-tokenizer leaves 2^31 characters in one piece
  std::vector<TokenId> encode(std::string_view text, Template applied = Template::kApply) const;

  /// The text of `ids`; what is no UTF-8 becomes U+FFFD. Undoes encode() up to normalization.
  /// An id that is no token, such as a row that only pads a model's embedding, has no text.
  /// @throws Error(kInvalidArgument) for a negative id
  std::string decode(std::span<const TokenId> ids, SpecialTokens special) const;

  /// One more than the largest id. A model's embedding may have more rows, to pad it.
  std::int64_t vocab_size() const;

  /// Decodes tokens one by one, for text that appears while it is generated: the texts of all
  /// push() and of finish() together are decode() of all ids. A push holds back what a later token
  /// may complete, so it returns whole characters only, and possibly none.
  /// Must not outlive the tokenizer, which may be moved meanwhile.
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
    std::string held_;  // bytes of tokens that are not text yet
    bool is_at_start_ = true;
  };

 private:
  std::unique_ptr<const Impl> impl_;
};

}  // namespace c2r
