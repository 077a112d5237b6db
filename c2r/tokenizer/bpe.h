// Byte-pair encoding: a piece of text to token ids, by merging neighbours in the order learnt.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/tokenizer/bpe_tables.h"

namespace c2r {

/// One learnt merge: where `left` stands before `right`, both become `merged`. Merges of lower
/// rank go first; among equal ranks the leftmost.
struct BpeMerge {
  TokenId left{}, right{}, merged{};
  std::int32_t rank = 0;  // at least 0
};

/// What an encoder is made of. Read from tokenizer.json or tokenizer.model.
struct BpeModel {
  /// What each token stands for, by id: bytes of UTF-8, whole characters or not. Empty: the text
  /// never becomes this token, as for added tokens and unused ids. No two are the same.
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;
  /// The token of each single byte; kNoToken where there is none.
  std::array<TokenId, 256> byte_tokens{};
  bool is_byte_level = false;   // merging begins with bytes; else with characters
  bool ignores_merges = false;  // a piece that is a token is that token, whatever merging says
  /// What becomes of a character that is no token, if not all its bytes have one.
  std::optional<TokenId> unknown;
  bool fuses_unknown = false;  // several in a row become one
};

/// Encodes pieces. Immutable, so threads may share one; each brings its own Scratch.
///
/// Merging follows Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units"
/// (2016), section 3.2: of all neighbours that have a merge, the one of lowest rank is merged,
/// until none has. A piece that is a token by itself, the usual case, is looked up instead: the
/// constructor finds out for which tokens merging gives the same.
class Bpe {
 public:
  struct Symbol {
    TokenId id{};
    std::int32_t rank = 0;            // of the merge with the next symbol; kNoMerge if none
    TokenId merged{};                 // what that merge gives
    std::int32_t prev = 0, next = 0;  // neighbours; -1 at the ends
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // rank and position of candidates
  };

  /// Cost: encodes every token once, some 0.1 s for 150,000 tokens.
  explicit Bpe(BpeModel model);

  /// Appends the ids of `piece`, valid UTF-8. A byte or character without a token, where there is
  /// no unknown token either, gives nothing, as in Hugging Face's tokenizers.
  ///
  /// Cost: O(1) for a piece that is a token, else O(n log n) for n symbols.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  /// The token that stands for exactly `text`, or kNoToken.
  TokenId find(std::string_view text) const { return token_ids_.find(model_.tokens, text); }

 private:
  void start_symbols(std::string_view piece, std::vector<Symbol>& symbols) const;
  void add_character(std::string_view character, std::vector<Symbol>& symbols) const;
  void find_merge(std::vector<Symbol>& symbols, std::int32_t at) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(Scratch& scratch) const;
  void merge_with_next(std::vector<Symbol>& symbols, std::int32_t at) const;
  void append_merged(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  BpeModel model_;
  TokenTable token_ids_;
  MergeTable merges_;
  std::vector<bool> is_whole_;  // by id: a piece that is this token becomes it
};

}  // namespace c2r
