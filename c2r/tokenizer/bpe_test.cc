// Compares byte-pair encoding with a plain implementation of its definition.
#include "c2r/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

TokenId token(std::size_t id) {
  return TokenId(static_cast<std::int32_t>(id));
}

// The definition: merge the neighbours of lowest rank, the leftmost of equals, until none is left.
std::vector<TokenId> by_definition(const BpeModel& model, std::string_view piece) {
  std::vector<TokenId> ids;
  for (const char c : piece) ids.push_back(model.byte_tokens[static_cast<unsigned char>(c)]);
  for (;;) {
    const BpeMerge* best = nullptr;
    std::size_t best_at = 0;
    for (std::size_t at = 0; at + 1 < ids.size(); ++at) {
      for (const BpeMerge& merge : model.merges) {
        const bool applies = merge.left == ids[at] && merge.right == ids[at + 1];
        if (applies && (best == nullptr || merge.rank < best->rank)) best = &merge, best_at = at;
      }
    }
    if (best == nullptr) return ids;
    ids[best_at] = best->merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

// Bytes of `alphabet`, and random merges of what there is so far.
BpeModel random_model(std::string_view alphabet, std::size_t num_merges, bool has_ties,
                      std::mt19937& rng) {
  BpeModel model{.is_byte_level = true};
  model.byte_tokens.fill(kNoToken);
  for (const char c : alphabet) {
    model.byte_tokens[static_cast<unsigned char>(c)] = token(model.tokens.size());
    model.tokens.emplace_back(1, c);
  }
  while (model.merges.size() < num_merges) {
    const std::size_t left = rng() % model.tokens.size(), right = rng() % model.tokens.size();
    const std::string text = model.tokens[left] + model.tokens[right];
    if (text.size() > 12 || std::ranges::count(model.tokens, text) > 0) continue;
    const auto rank = static_cast<std::int32_t>(has_ties ? rng() % 4 : model.merges.size());
    model.merges.push_back({token(left), token(right), token(model.tokens.size()), rank});
    model.tokens.push_back(text);
  }
  return model;
}

std::vector<TokenId> encode(const Bpe& bpe, std::string_view piece) {
  Bpe::Scratch scratch;
  std::vector<TokenId> ids;
  bpe.encode(piece, scratch, ids);
  return ids;
}

// l o w e r, with "lo" learnt first, then "er", then "low".
TEST(Bpe, MergesAWorkedExample) {
  BpeModel model{.tokens = {"l", "o", "w", "e", "r", "lo", "er", "low"},
                 .merges = {{token(0), token(1), token(5), 0},
                            {token(3), token(4), token(6), 1},
                            {token(5), token(2), token(7), 2}},
                 .is_byte_level = true};
  model.byte_tokens.fill(kNoToken);
  for (std::size_t i = 0; i < 5; ++i) {
    model.byte_tokens[static_cast<unsigned char>(model.tokens[i][0])] = token(i);
  }
  const Bpe bpe(model);
  EXPECT_EQ(encode(bpe, "lower"), (std::vector{token(7), token(6)}));
  EXPECT_EQ(encode(bpe, "low"), std::vector{token(7)});
  EXPECT_EQ(encode(bpe, "olx"), (std::vector{token(1), token(0)}));  // x is no token
  EXPECT_EQ(encode(bpe, ""), std::vector<TokenId>{});
}

// Short pieces, long ones (which use the heap), and ranks that are equal.
TEST(Bpe, MatchesTheDefinition) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 rng(seed);
    const BpeModel model = random_model("abcd", 5 + seed % 40, seed % 2 == 0, rng);
    const Bpe bpe(model);
    for (int round = 0; round < 20; ++round) {
      std::string piece(rng() % (round < 10 ? 20 : 200), 'a');
      for (char& c : piece) c = static_cast<char>('a' + rng() % 4);
      EXPECT_EQ(encode(bpe, piece), by_definition(model, piece)) << piece;
    }
    for (const std::string& text : model.tokens) {  // what is looked up, not merged
      EXPECT_EQ(encode(bpe, text), by_definition(model, text)) << text;
    }
  }
}

TEST(Bpe, FindsWholeTokensFirstIfItIgnoresMerges) {
  std::mt19937 rng(1);
  BpeModel model = random_model("ab", 10, false, rng);
  model.tokens.emplace_back("abbabbab");  // no merge gives it
  model.ignores_merges = true;
  const Bpe bpe(model);
  for (std::size_t id = 0; id < model.tokens.size(); ++id) {
    EXPECT_EQ(encode(bpe, model.tokens[id]), std::vector{token(id)});
  }
}

TEST(Bpe, TakesBytesOrTheUnknownTokenForCharactersThatAreNone) {
  BpeModel model{.tokens = {"<unk>", "a", "", ""}, .unknown = token(0)};
  model.byte_tokens.fill(kNoToken);
  model.byte_tokens[0xC3] = token(2), model.byte_tokens[0xA9] = token(3);
  const auto ids = [&] { return encode(Bpe(model), "aéxxa"); };
  EXPECT_EQ(ids(), (std::vector{token(1), token(2), token(3), token(0), token(0), token(1)}));
  model.fuses_unknown = true;
  EXPECT_EQ(ids(), (std::vector{token(1), token(2), token(3), token(0), token(1)}));
  model.unknown = std::nullopt;
  EXPECT_EQ(ids(), (std::vector{token(1), token(2), token(3), token(1)}));
}

}  // namespace
}  // namespace c2r
