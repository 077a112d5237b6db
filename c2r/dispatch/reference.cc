// The reference of dispatch, experts and combine, token by token and choice by choice.
#include "c2r/dispatch/reference.h"

#include <array>

#include "c2r/core/element.h"

namespace c2r {
namespace {

using TokenRow = std::vector<float>;

// What arrives at `dst`.
TokenRow travel(TokenRow row, RankId src, RankId dst, ElementType type) {
  if (src == dst) return row;
  std::array<std::byte, 4> stored{};
  for (float& v : row) {
    store_element(stored.data(), type, 0, v);
    v = load_element(stored.data(), type, 0);
  }
  return row;
}

void add_weighted(const TokenRow& row, float weight, std::span<float> sum) {
  for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * row[c];
}

// One token, whose choices are served by `served_by`.
struct Token {
  RankId home;
  TokenRow x;
  std::span<const ExpertId> experts;  // [top_k]
  std::span<const float> weights;     // [top_k]
  std::span<const RankId> served_by;  // [top_k]
};

class Reference {
 public:
  Reference(const DispatchOptions& options, const ExpertFunction& expert)
      : options_(options), expert_(expert) {}

  void add_token(const Token& token, std::span<float> sum) const {
    switch (options_.sums_before_return ? options_.traffic.copy_mode : CopyMode::kPerExpert) {
      case CopyMode::kPerExpert:
        return add_per_expert(token, sum);
      case CopyMode::kPerRank:
        for (std::int32_t r = 0; r < options_.traffic.cluster.ep_size(); ++r) {
          add_rank(token, RankId{r}, token.home, sum);
        }
        return;
      case CopyMode::kPerNode:
        return add_per_node(token, sum);
      case CopyMode::kAllGather:
        return;
    }
  }

 private:
  TokenRow output(const Token& token, std::size_t k) const {
    const TokenRow x = travel(token.x, token.home, token.served_by[k], options_.row_type);
    TokenRow y(x.size());
    expert_(token.experts[k], x, y);
    return y;
  }

  void add_per_expert(const Token& token, std::span<float> sum) const {
    for (std::size_t k = 0; k < token.experts.size(); ++k) {
      if (token.experts[k] == kNoExpert) continue;
      add_weighted(travel(output(token, k), token.served_by[k], token.home, options_.row_type),
                   token.weights[k], sum);
    }
  }

  // What `rank` returns to `to`, if it serves the token.
  void add_rank(const Token& token, RankId rank, RankId to, std::span<float> sum) const {
    TokenRow partial(token.x.size());
    bool serves = false;
    for (std::size_t k = 0; k < token.experts.size(); ++k) {
      if (token.experts[k] == kNoExpert || token.served_by[k] != rank) continue;
      add_weighted(output(token, k), token.weights[k], partial);
      serves = true;
    }
    if (serves) add_weighted(travel(partial, rank, to, options_.row_type), 1, sum);
  }

  void add_per_node(const Token& token, std::span<float> sum) const {
    const Cluster& cluster = options_.traffic.cluster;
    for (std::int32_t node = 0; node < cluster.num_nodes; ++node) {
      const RankId relay = cluster.peer_on(node, token.home);
      TokenRow partial(token.x.size());
      for (std::int32_t place = 0; place < cluster.ranks_per_node; ++place) {
        const RankId rank{node * cluster.ranks_per_node + place};
        add_rank(token, rank, relay, relay == token.home ? sum : std::span(partial));
      }
      add_weighted(travel(partial, relay, token.home, options_.row_type), 1, sum);
    }
  }

  const DispatchOptions& options_;
  const ExpertFunction& expert_;
};

}  // namespace

std::vector<Matrix<float>> reference_exchange(std::span<const TokenBatch> batches,
                                              const Placement& placement,
                                              const DispatchOptions& options,
                                              const ExpertFunction& expert) {
  ReplicaChooser chooser(placement, options.traffic);
  const Reference reference(options, expert);
  std::vector<Matrix<float>> sums;
  for (std::size_t home = 0; home < batches.size(); ++home) {
    const TokenBatch& batch = batches[home];
    Matrix<float>& sum = sums.emplace_back(batch.x.rows(), batch.x.cols());
    std::vector<RankId> served_by(std::size_t(batch.topk_idx.cols()));
    for (std::int64_t t = 0; t < batch.x.rows(); ++t) {
      const RankId rank{static_cast<std::int32_t>(home)};
      chooser.choose(batch.topk_idx.row(t), rank, batch.first_token + t, served_by);
      const auto x = batch.x.row(t);
      reference.add_token({rank, TokenRow(x.begin(), x.end()), batch.topk_idx.row(t),
                           batch.topk_weights.row(t), served_by},
                          sum.row(t));
    }
  }
  return sums;
}

}  // namespace c2r
