#include "c2r/model/decoder.h"

#include <algorithm>
#include <cmath>

#include "c2r/core/error.h"

namespace c2r {
namespace {

std::vector<Router> make_routers(const ModelConfig& config) {
  std::vector<Router> routers;
  for (std::int64_t layer = 0; layer < config.num_moe_layers(); ++layer) {
    routers.emplace_back(routing_policy(config, layer), config.num_experts);
  }
  return routers;
}

void check_batch(std::span<const SequenceChunk> batch, const ModelConfig& config) {
  for (const auto& [cache, tokens] : batch) {
    C2R_REQUIRE(!tokens.empty(), kInvalidArgument, "a sequence of the batch has no new token");
    C2R_REQUIRE(cache->num_tokens() + std::ssize(tokens) <= cache->capacity(), kInvalidArgument,
                "{} new tokens do not fit a cache with {} of {} in use", tokens.size(),
                cache->num_tokens(), cache->capacity());
    for (const std::int32_t token : tokens) {
      C2R_REQUIRE(0 <= token && token < config.vocab_size, kInvalidArgument,
                  "token {} is not in the vocabulary of {}", token, config.vocab_size);
    }
  }
}

void add(std::span<const float> from, float weight, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += weight * from[i];
}

// logits = W x, or W2 tanh(W1 x).
Matrix<float> gate_logits(const MoeWeights& weights, MatrixView<const float> x, GroupedGemm& gemm) {
  Matrix<float> logits(x.rows(), weights.gate.num_outputs);
  const GemmGroup first{.x = x, .weight = weights.gate, .out = logits};
  gemm.run({&first, 1});
  if (weights.second_gate.data == nullptr) return logits;
  for (float& v : logits.all()) v = std::tanh(v);
  Matrix<float> second(logits.rows(), weights.second_gate.num_outputs);
  const GemmGroup group{.x = logits, .weight = weights.second_gate, .out = second};
  gemm.run({&group, 1});
  return second;
}

// Rows by expert: expert e has [offsets[e], offsets[e + 1]), in the order of its tokens.
struct Grouping {
  std::vector<std::int64_t> offsets;  // [num_experts + 1]
  Matrix<std::int64_t> row_of;        // [num_tokens, top_k]
};

Grouping group_by_expert(const Routing& routing) {
  Grouping grouping{
      .offsets = std::vector<std::int64_t>(static_cast<std::size_t>(routing.num_experts) + 1),
      .row_of = {routing.num_tokens(), routing.top_k()}};
  for (const ExpertId e : routing.topk_idx.all()) ++grouping.offsets[index(e) + 1];
  for (std::size_t e = 1; e < grouping.offsets.size(); ++e) {
    grouping.offsets[e] += grouping.offsets[e - 1];
  }
  std::vector<std::int64_t> next(grouping.offsets.begin(), grouping.offsets.end() - 1);
  for (std::int64_t t = 0; t < routing.num_tokens(); ++t) {
    for (std::int64_t k = 0; k < routing.top_k(); ++k) {
      grouping.row_of(t, k) = next[index(routing.topk_idx(t, k))]++;
    }
  }
  return grouping;
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const ModelWeights& weights, Arithmetic arithmetic,
                 ThreadPool& pool)
    : config_(config),
      weights_(weights),
      gemm_(arithmetic, pool),
      exact_gemm_(Arithmetic::kF32, pool),
      mlps_(gemm_),
      attention_(config, gemm_),
      routers_(make_routers(config)) {}

void Decoder::embed(std::span<const SequenceChunk> batch) {
  std::int64_t num_tokens = 0;
  for (const SequenceChunk& chunk : batch) num_tokens += std::ssize(chunk.tokens);
  residual_.reshape(num_tokens, config_.hidden);
  std::int64_t row = 0;
  for (const SequenceChunk& chunk : batch) {
    for (const std::int32_t token : chunk.tokens) {
      copy_weights(weights_.embeddings.row(token), weights_.embeddings.type, residual_.row(row++));
    }
  }
}

void Decoder::normalize(std::span<const float> weight) {
  normalized_.reshape(residual_.rows(), residual_.cols());
  gemm_.pool().run(residual_.rows(), [&](std::int64_t row, int) {
    std::ranges::copy(residual_.row(row), normalized_.row(row).begin());
    rms_norm(normalized_.row(row), weight, config_.rms_norm_eps);
  });
}

// Experts compute their tokens' rows side by side; then each token adds its experts' rows, best
// first, and the shared expert's last.
void Decoder::add_experts(const MoeWeights& weights, const Routing& routing) {
  const std::int64_t num_tokens = routing.num_tokens(), num_rows = num_tokens * routing.top_k();
  const Grouping grouping = group_by_expert(routing);
  const std::int64_t num_shared = weights.shared ? num_tokens : 0;
  expert_in_.reshape(num_rows, config_.hidden);
  expert_out_.reshape(num_rows + num_shared, config_.hidden);
  gemm_.pool().run(num_tokens, [&](std::int64_t t, int) {
    for (const std::int64_t row : grouping.row_of.row(t)) {
      std::ranges::copy(normalized_.row(t), expert_in_.row(row).begin());
    }
  });

  const MatrixView<const float> in = expert_in_;
  const MatrixView<float> out = expert_out_;
  std::vector<ExpertRows> groups;
  if (weights.shared) {
    groups.push_back({&*weights.shared, normalized_, out.rows(num_rows, num_rows + num_shared)});
  }
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    const std::int64_t begin = grouping.offsets[e], end = grouping.offsets[e + 1];
    groups.push_back({&weights.experts[e], in.rows(begin, end), out.rows(begin, end)});
  }
  Matrix<float> shared_gate(num_shared, 1);
  if (weights.shared) {
    const GemmGroup gate{.x = normalized_, .weight = weights.shared_gate, .out = shared_gate};
    exact_gemm_.run({&gate, 1});
  }
  mlps_.run(groups);
  gemm_.pool().run(num_tokens, [&](std::int64_t t, int) {
    for (std::int64_t k = 0; k < routing.top_k(); ++k) {
      add(out.row(grouping.row_of(t, k)), routing.topk_weights(t, k), residual_.row(t));
    }
    if (weights.shared) {
      add(out.row(num_rows + t), 1 / (1 + std::exp(-shared_gate(t, 0))), residual_.row(t));
    }
  });
}

void Decoder::run_moe(std::int64_t moe_layer, const MoeWeights& weights,
                      const RoutingObserver& observer) {
  const Matrix<float> logits = gate_logits(weights, normalized_, exact_gemm_);
  const Routing routing = routers_[static_cast<std::size_t>(moe_layer)].route(logits);
  if (observer) observer(moe_layer, routing);
  add_experts(weights, routing);
}

MatrixView<const float> Decoder::forward(std::span<const SequenceChunk> batch,
                                         const RoutingObserver& observer) {
  check_batch(batch, config_);
  embed(batch);
  std::vector<Segment> segments;
  std::int64_t row = 0;
  for (const auto& [cache, tokens] : batch) {
    segments.push_back({cache, row, std::ssize(tokens)});
    row += std::ssize(tokens);
  }
  const auto add_block = [&](std::int64_t t, int) { add(normalized_.row(t), 1, residual_.row(t)); };
  std::int64_t moe_layer = 0;
  for (std::int32_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
    normalize(w.input_norm);
    attention_.run(w.attention, layer, segments, normalized_);
    gemm_.pool().run(residual_.rows(), add_block);
    normalize(w.post_attention_norm);
    if (w.moe) {
      run_moe(moe_layer++, *w.moe, observer);
    } else {
      const ExpertRows all{&w.dense, normalized_, normalized_};
      mlps_.run({&all, 1});
      gemm_.pool().run(residual_.rows(), add_block);
    }
  }
  for (const Segment& segment : segments) segment.cache->num_tokens_ += segment.num_tokens;
  normalize(weights_.final_norm);
  return normalized_;
}

void Decoder::logits(MatrixView<const float> states, MatrixView<float> out) {
  const GemmGroup group{.x = states, .weight = weights_.output, .out = out};
  gemm_.run({&group, 1});
}

}  // namespace c2r
