// Byte-pair encoding over a linked list of symbols, by a scan for short pieces and by a heap for
// long ones.
#include "c2r/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/utf8.h"

namespace c2r {
namespace {

constexpr std::int32_t kNoMerge = std::numeric_limits<std::int32_t>::max();

// Up to this number of symbols, a scan over all of them for each merge is faster than a heap.
constexpr std::size_t kShortPiece = 48;

// Orders by rank, then by position.
std::uint64_t heap_entry(std::int32_t rank, std::int32_t at) {
  return std::uint64_t(static_cast<std::uint32_t>(rank)) << 32 | static_cast<std::uint32_t>(at);
}

}  // namespace

Bpe::Bpe(BpeModel model)
    : model_(std::move(model)),
      token_ids_(model_.tokens),
      merges_(model_.merges.size()),
      is_whole_(model_.tokens.size()) {
  for (const BpeMerge& merge : model_.merges) {
    merges_.set(merge.left, merge.right, merge.rank, merge.merged);
  }
  model_.merges = {};  // merges_ holds them now

  Scratch scratch;
  std::vector<TokenId> ids;
  for (std::size_t id = 0; id < model_.tokens.size(); ++id) {
    ids.clear();
    if (!model_.ignores_merges) append_merged(model_.tokens[id], scratch, ids);
    is_whole_[id] = model_.ignores_merges || (ids.size() == 1 && index(ids[0]) == id);
  }
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const {
  const TokenId whole = find(piece);
  if (whole != kNoToken && is_whole_[index(whole)]) {
    ids.push_back(whole);
  } else {
    append_merged(piece, scratch, ids);
  }
}

void Bpe::append_merged(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const {
  auto& symbols = scratch.symbols;
  start_symbols(piece, symbols);
  if (symbols.empty()) return;
  if (symbols.size() <= kShortPiece) {
    merge_short(symbols);
  } else {
    merge_long(scratch);
  }
  // A merge is stored in the left symbol, so the first symbol always stays.
  for (std::int32_t at = 0; at >= 0; at = symbols[std::size_t(at)].next) {
    ids.push_back(symbols[std::size_t(at)].id);
  }
}

// Makes the linked list of symbols that merging begins with, each with the merge it may take.
void Bpe::start_symbols(std::string_view piece, std::vector<Symbol>& symbols) const {
  symbols.clear();
  if (model_.is_byte_level) {
    for (const char c : piece) {
      const TokenId id = model_.byte_tokens[static_cast<unsigned char>(c)];
      if (id != kNoToken) symbols.push_back({.id = id});
    }
  } else {
    while (!piece.empty()) {
      const std::size_t length = first_utf8_unit(piece).num_bytes;
      add_character(piece.substr(0, length), symbols);
      piece.remove_prefix(length);
    }
  }
  C2R_REQUIRE(symbols.size() < std::size_t{1} << 31, kInvalidArgument,
              "a piece of text has {} characters, but must have fewer than 2^31", symbols.size());
  const auto last = std::ssize(symbols) - 1;
  for (std::int32_t at = 0; at <= last; ++at) {
    symbols[std::size_t(at)].prev = at - 1;
    symbols[std::size_t(at)].next = at == last ? -1 : at + 1;
  }
  for (std::int32_t at = 0; at <= last; ++at) find_merge(symbols, at);
}

void Bpe::add_character(std::string_view character, std::vector<Symbol>& symbols) const {
  const TokenId id = find(character);
  if (id != kNoToken) return void(symbols.push_back({.id = id}));
  const auto token_of = [&](char c) { return model_.byte_tokens[static_cast<unsigned char>(c)]; };
  if (std::ranges::all_of(character, [&](char c) { return token_of(c) != kNoToken; })) {
    for (const char c : character) symbols.push_back({.id = token_of(c)});
  } else if (model_.unknown) {
    const bool is_fused =
        model_.fuses_unknown && !symbols.empty() && symbols.back().id == *model_.unknown;
    if (!is_fused) symbols.push_back({.id = *model_.unknown});
  }
}

void Bpe::find_merge(std::vector<Symbol>& symbols, std::int32_t at) const {
  Symbol& symbol = symbols[std::size_t(at)];
  symbol.rank = kNoMerge;
  if (symbol.next < 0) return;
  const auto* const merge = merges_.find(symbol.id, symbols[std::size_t(symbol.next)].id);
  if (merge == nullptr) return;
  symbol.rank = merge->rank;
  symbol.merged = merge->merged;
}

// Merges symbol `at` with the next one, and finds the merges of the two new pairs of neighbours.
void Bpe::merge_with_next(std::vector<Symbol>& symbols, std::int32_t at) const {
  Symbol& symbol = symbols[std::size_t(at)];
  Symbol& merged_away = symbols[std::size_t(symbol.next)];
  symbol.id = symbol.merged;
  symbol.next = merged_away.next;
  merged_away.rank = kNoMerge;
  if (symbol.next >= 0) symbols[std::size_t(symbol.next)].prev = at;
  find_merge(symbols, at);
  if (symbol.prev >= 0) find_merge(symbols, symbol.prev);
}

void Bpe::merge_short(std::vector<Symbol>& symbols) const {
  for (;;) {
    const auto best = std::ranges::min_element(symbols, {}, &Symbol::rank);  // the first of equals
    if (best->rank == kNoMerge) return;
    merge_with_next(symbols, static_cast<std::int32_t>(best - symbols.begin()));
  }
}

// As merge_short(), with a heap. An entry whose symbol has another rank by now is out of date and
// skipped.
void Bpe::merge_long(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  const auto entry_of = [&](std::int32_t at) {
    return heap_entry(symbols[std::size_t(at)].rank, at);
  };
  for (std::int32_t at = 0; at < std::ssize(symbols); ++at) {
    if (symbols[std::size_t(at)].rank != kNoMerge) heap.push_back(entry_of(at));
  }
  std::ranges::make_heap(heap, std::greater{});
  const auto push = [&](std::int32_t at) {
    if (at < 0 || symbols[std::size_t(at)].rank == kNoMerge) return;
    heap.push_back(entry_of(at));
    std::ranges::push_heap(heap, std::greater{});
  };
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater{});
    const std::uint64_t entry = heap.back();
    heap.pop_back();
    const auto at = static_cast<std::int32_t>(entry & 0xFFFFFFFFu);
    if (entry != entry_of(at)) continue;
    merge_with_next(symbols, at);
    push(at);
    push(symbols[std::size_t(at)].prev);
  }
}

}  // namespace c2r
