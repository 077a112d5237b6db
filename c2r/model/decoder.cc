// Runs the layers of a decoder on a batch.
#include "c2r/model/decoder.h"

#include <algorithm>

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

void check_batch(std::span<const SequenceSlice> batch, const ModelConfig& config) {
  std::vector<const KvCache*> caches;
  for (const auto& [cache, tokens] : batch) {
    C2R_REQUIRE(cache != nullptr && cache->is_for(config), kInvalidArgument,
                "sequence {} of the batch has {}", caches.size(),
                cache == nullptr ? "no cache" : "the cache of another model");
    caches.push_back(cache);
    C2R_REQUIRE(!tokens.empty(), kInvalidArgument, "a sequence of the batch has no new token");
    C2R_REQUIRE(cache->num_tokens() + std::ssize(tokens) <= cache->capacity(), kInvalidArgument,
                "{} new tokens do not fit a cache with {} of {} in use", tokens.size(),
                cache->num_tokens(), cache->capacity());
    check_tokens(tokens, config);
  }
  std::ranges::sort(caches);
  C2R_REQUIRE(std::ranges::adjacent_find(caches) == caches.end(), kInvalidArgument,
              "two sequences of the batch have the same cache");
}

void add(std::span<const float> from, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const ModelWeights& weights, Arithmetic arithmetic,
                 ThreadPool& pool, RoutedExperts* experts)
    : config_(config),
      weights_(weights),
      gemm_(arithmetic, pool),
      mlps_(gemm_),
      local_experts_(gemm_),
      moe_(gemm_, experts != nullptr ? *experts : local_experts_),
      attention_(config, gemm_),
      routers_(make_routers(config)) {}

void Decoder::embed(std::span<const SequenceSlice> batch) {
  std::int64_t num_tokens = 0;
  for (const SequenceSlice& slice : batch) num_tokens += std::ssize(slice.tokens);
  residual_.reshape(num_tokens, config_.hidden);
  std::int64_t row = 0;
  for (const SequenceSlice& slice : batch) {
    for (const TokenId token : slice.tokens) {
      weights_.embeddings.read_row(static_cast<std::int64_t>(token), residual_.row(row++));
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

MatrixView<const float> Decoder::forward(std::span<const SequenceSlice> batch,
                                         const RoutingObserver& observer) {
  check_batch(batch, config_);
  embed(batch);
  std::vector<Segment> segments;
  std::int64_t row = 0;
  for (const auto& [cache, tokens] : batch) {
    segments.push_back({cache, row, std::ssize(tokens)});
    row += std::ssize(tokens);
  }
  const auto add_block = [&](std::int64_t t, int) { add(normalized_.row(t), residual_.row(t)); };
  std::int64_t moe_layer = 0;
  for (std::int32_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
    normalize(w.input_norm);
    attention_.run(w.attention, layer, segments, normalized_);
    gemm_.pool().run(residual_.rows(), add_block);
    normalize(w.post_attention_norm);
    if (w.moe) {
      const Router& router = routers_[static_cast<std::size_t>(moe_layer)];
      const Routing routing = moe_.run(moe_layer, *w.moe, router, normalized_, residual_);
      if (observer) observer(moe_layer, routing);
      ++moe_layer;
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
