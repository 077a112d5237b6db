#include "c2r/engine/deal.h"

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"

namespace c2r {

Piece piece_of(std::span<const TokenId> tokens) {
  Piece piece(tokens.size());
  std::ranges::transform(tokens, piece.begin(),
                         [](TokenId token) { return static_cast<std::int32_t>(token); });
  return piece;
}

std::vector<TokenId> tokens_of(std::span<const std::int32_t> piece) {
  std::vector<TokenId> tokens(piece.size());
  std::ranges::transform(piece, tokens.begin(), [](std::int32_t id) { return TokenId{id}; });
  return tokens;
}

std::optional<Piece> deal(Transport* transport, const std::function<std::optional<Piece>()>& next) {
  if (transport == nullptr) return next();
  std::vector<Piece> pieces;
  if (transport->rank() == RankId{0}) {
    while (std::ssize(pieces) < transport->ep_size()) {
      auto piece = next();
      if (!piece) break;
      C2R_ASSERT(!piece->empty());
      pieces.push_back(std::move(*piece));
    }
    // Behind each piece: whether there is a round.
    const bool is_round = !pieces.empty();
    pieces.resize(static_cast<std::size_t>(transport->ep_size()));
    for (Piece& piece : pieces) piece.push_back(is_round ? 1 : 0);
  }
  Piece mine = scatter<std::int32_t>(*transport, pieces, "the next sequences");
  const bool is_round = mine.back() == 1;
  mine.pop_back();
  return is_round ? std::optional(std::move(mine)) : std::nullopt;
}

}  // namespace c2r
