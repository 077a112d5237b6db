// Byte-pair encoding: turns a piece of text into token ids by merging neighbours in the learnt
// order.
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

/// One learnt merge: `left` and a following `right` become `merged`. The merge of lowest rank is
/// done first; of equal ranks, the leftmost.
struct BpeMerge {
  TokenId left{}, right{}, merged{};
  std::int32_t rank = 0;  // at least 0
};

/// The parameters of an encoder, as read from tokenizer.json or tokenizer.model.
struct BpeModel {
  /// The text of each token, by id: bytes of UTF-8, which need not be whole characters. Empty for
  /// ids that no text is encoded to, such as added tokens and unused ids. No two texts are equal.
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;
  /// The token of each single byte; kNoToken where there is none.
  std::array<TokenId, 256> byte_tokens{};
  bool is_byte_level = false;   // merging begins with bytes; otherwise with characters
  bool ignores_merges = false;  // a piece equal to a token becomes it, whatever merging gives
  /// The token of a character that is no token itself and has a byte without a token.
  std::optional<TokenId> unknown;
  bool fuses_unknown = false;  // several unknown characters in a row become one token
};

/// Encodes pieces. Immutable, so threads may share one; each brings its own Scratch.
///
/// Merging follows Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units"
/// (2016), section 3.2: of all neighbours that have a merge, the one of lowest rank is merged,
/// until no neighbours have one. A piece that is itself a token, the usual case, is looked up
/// instead if merging gives the same token; the constructor finds out for which tokens that is so.
class Bpe {
 public:
  struct Symbol {
    TokenId id{};
    std::int32_t rank = 0;            // of the merge with the next symbol; kNoMerge if none
    TokenId merged{};                 // the result of that merge
    std::int32_t prev = 0, next = 0;  // neighbours; -1 at the ends
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // rank and position of possible merges
  };

  /// Cost: encodes every token once, some 0.1 s for 150,000 tokens.
  explicit Bpe(BpeModel model);

  /// Appends the ids of `piece`, valid UTF-8. A byte or character without a token is left out if
  /// there is no unknown token, as in Hugging Face's tokenizers.
  ///
  /// @throws Error(kInvalidArgument) if the piece has 2^31 characters or more
  ///
  /// Cost: O(1) for a piece that is a token, else O(n log n) for n symbols.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  /// @returns the token whose text is `text`, or kNoToken
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
  std::vector<bool> is_whole_;  // by id: whether a piece equal to this token becomes it
};

}  // namespace c2r
