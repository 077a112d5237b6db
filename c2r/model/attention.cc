// Grouped-query attention with rotary positions: projections, the KV cache, and attention by head.
#include "c2r/model/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/experts/activation.h"

namespace c2r {
namespace {

// The queries of one task. Their f32 scores with all positions should fit in the processor's
// caches.
constexpr std::int64_t kQueriesPerTask = 32;

void check_segments(std::span<const Segment> segments, std::int64_t layer, std::int64_t num_rows,
                    const ModelConfig& config) {
  C2R_REQUIRE(0 <= layer && layer < config.num_layers, kInvalidArgument,
              "there is no layer {} in a model with {}", layer, config.num_layers);
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const auto& [cache, first_row, num_tokens] = segments[s];
    C2R_REQUIRE(cache != nullptr && cache->is_for(config), kInvalidArgument,
                "segment {} has no cache of this model", s);
    C2R_REQUIRE(
        0 <= first_row && 0 <= num_tokens && num_tokens <= num_rows - first_row &&
            num_tokens <= cache->capacity() - cache->num_tokens(),
        kInvalidArgument,
        "segment {} has rows [{}, {} + {}), but there are {} rows, and {} of {} positions of "
        "its cache are free",
        s, first_row, first_row, num_tokens, num_rows, cache->capacity() - cache->num_tokens(),
        cache->capacity());
  }
}

// Rotary position embedding (RoFormer, arXiv 2104.09864): the pair (i, i + head_dim / 2) of a head
// is rotated by the angle position / theta^(2 i / head_dim). Hugging Face checkpoints pair elements
// so.
struct Rotation {
  std::vector<float> cosines, sines;  // [head_dim / 2]
};

// Angles are products in f32, as in Hugging Face transformers.
Rotation rotation_of(std::int64_t position, std::span<const float> inverse_frequencies) {
  Rotation rotation;
  for (const float frequency : inverse_frequencies) {
    const double angle = static_cast<float>(position) * frequency;
    rotation.cosines.push_back(static_cast<float>(std::cos(angle)));
    rotation.sines.push_back(static_cast<float>(std::sin(angle)));
  }
  return rotation;
}

void rotate(std::span<float> head, const Rotation& rotation) {
  const std::size_t half = head.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float low = head[i], high = head[i + half];
    head[i] = low * rotation.cosines[i] - high * rotation.sines[i];
    head[i + half] = high * rotation.cosines[i] + low * rotation.sines[i];
  }
}

}  // namespace

void rms_norm(std::span<float> x, std::span<const float> weight, float eps) {
  C2R_REQUIRE(x.size() == weight.size(), kInvalidArgument,
              "{} values cannot be normalized with {} weights", x.size(), weight.size());
  double squares = 0;
  for (const float v : x) squares += double{v} * double{v};
  const auto scale =
      static_cast<float>(1 / std::sqrt(squares / static_cast<double>(x.size()) + double{eps}));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] * scale * weight[i];
}

void check_length(std::int64_t num_tokens, const ModelConfig& config) {
  C2R_REQUIRE(1 <= num_tokens && num_tokens <= config.max_positions, kInvalidArgument,
              "a sequence of {} tokens was asked for, but the model has positions for 1 to {}",
              num_tokens, config.max_positions);
}

void check_tokens(std::span<const TokenId> tokens, const ModelConfig& config) {
  for (const TokenId token : tokens) {
    const auto id = static_cast<std::int64_t>(token);
    C2R_REQUIRE(0 <= id && id < config.vocab_size, kInvalidArgument,
                "token {} is not in the vocabulary of {}", id, config.vocab_size);
  }
}

KvCache::KvCache(const ModelConfig& config, Arithmetic arithmetic, std::int64_t capacity)
    : type_(arithmetic == Arithmetic::kBf16 ? ElementType::kBf16 : ElementType::kF32),
      num_kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      capacity_(capacity) {
  check_length(capacity, config);
  const auto bytes = static_cast<std::size_t>(head_begin(config.num_layers, 0));
  keys_.resize(bytes);
  values_.resize(bytes);
}

bool KvCache::is_for(const ModelConfig& config) const {
  return num_kv_heads_ == config.num_kv_heads && head_dim_ == config.head_dim &&
         std::ssize(keys_) == head_begin(config.num_layers, 0);
}

void KvCache::truncate(std::int64_t num_tokens) {
  C2R_REQUIRE(0 <= num_tokens && num_tokens <= num_tokens_, kInvalidArgument,
              "a cache of {} tokens cannot be cut to {}", num_tokens_, num_tokens);
  num_tokens_ = num_tokens;
}

std::int64_t KvCache::token_bytes() const {
  return capacity_ == 0 ? 0 : 2 * std::ssize(keys_) / capacity_;
}

// Calls copy(is_value, offset, size) for each run of bytes of the first tokens: the keys of a head
// are together, its values in a run for each element.
template <class Copy>
void KvCache::for_each_run(std::int64_t num_tokens, const Copy& copy) const {
  const std::int64_t element = element_bytes(type_), head_bytes = head_dim_ * capacity_ * element;
  for (std::int64_t head = 0; head < std::ssize(keys_); head += head_bytes) {
    copy(false, head, num_tokens * head_dim_ * element);
    for (std::int64_t d = 0; d < head_dim_; ++d) {
      copy(true, head + d * capacity_ * element, num_tokens * element);
    }
  }
}

std::vector<std::byte> KvCache::save() const {
  std::vector<std::byte> saved;
  saved.reserve(static_cast<std::size_t>(num_tokens_ * token_bytes()));
  if (num_tokens_ == 0) return saved;
  for_each_run(num_tokens_, [&](bool is_value, std::int64_t offset, std::int64_t size) {
    const auto from = (is_value ? values_ : keys_).begin() + offset;
    saved.insert(saved.end(), from, from + size);
  });
  return saved;
}

void KvCache::restore(std::span<const std::byte> saved) {
  const std::int64_t num_tokens = std::ssize(saved) / std::max<std::int64_t>(1, token_bytes());
  C2R_REQUIRE(num_tokens_ == 0 && num_tokens <= capacity_ &&
                  num_tokens * token_bytes() == std::ssize(saved),
              kInvalidArgument,
              "{} bytes of keys and values are not those of up to {} tokens of {} bytes, or the "
              "cache has {} tokens already",
              saved.size(), capacity_, token_bytes(), num_tokens_);
  if (num_tokens == 0) return;
  auto from = saved.begin();
  for_each_run(num_tokens, [&](bool is_value, std::int64_t offset, std::int64_t size) {
    std::copy(from, from + size, (is_value ? values_ : keys_).begin() + offset);
    from += size;
  });
  num_tokens_ = num_tokens;
}

void KvCache::store(std::int64_t layer, std::int64_t kv_head, std::int64_t position,
                    std::span<const float> key, std::span<const float> value) {
  keys(layer, kv_head).write_row(position, key);
  const MutableRowsView columns = values(layer, kv_head);
  for (std::int64_t d = 0; d < head_dim_; ++d) {
    store_element(columns.row(d), type_, position, value[static_cast<std::size_t>(d)]);
  }
}

// Some queries of one segment, for all heads that share one KV head.
struct Attention::HeadTask {
  const Segment* segment = nullptr;
  std::int64_t kv_head = 0;
  std::int64_t first_query = 0, num_queries = 0;  // in the segment
};

struct Attention::Scratch {
  explicit Scratch(Arithmetic arithmetic) : pool(1), gemm(arithmetic, pool) {}

  ThreadPool pool;
  GroupedGemm gemm;
  std::vector<float> queries, scores, outputs;
};

Attention::Attention(const ModelConfig& config, GroupedGemm& gemm) : config_(config), gemm_(gemm) {
  for (std::int64_t i = 0; i < config.head_dim / 2; ++i) {
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    inverse_frequencies_.push_back(1.0f /
                                   std::pow(static_cast<float>(config.rope_theta), exponent));
  }
  for (int thread = 0; thread < gemm.pool().num_threads(); ++thread) {
    scratch_.push_back(std::make_unique<Scratch>(gemm.arithmetic()));
  }
}

Attention::~Attention() = default;

void Attention::prepare_row(const AttentionWeights& weights, std::int64_t row,
                            std::int64_t position) {
  const Rotation rotation = rotation_of(position, inverse_frequencies_);
  const auto prepare = [&](std::span<float> heads, std::span<const float> norm) {
    const auto head_dim = static_cast<std::size_t>(config_.head_dim);
    if (config_.family->qk_norm == QkNorm::kWholeWidth) {
      rms_norm(heads, norm, config_.rms_norm_eps);
    }
    if (config_.clip_qkv) {
      for (float& v : heads) v = std::clamp(v, -*config_.clip_qkv, *config_.clip_qkv);
    }
    for (std::size_t begin = 0; begin < heads.size(); begin += head_dim) {
      const auto head = heads.subspan(begin, head_dim);
      if (config_.family->qk_norm == QkNorm::kPerHead) {
        rms_norm(head, norm, config_.rms_norm_eps);
      }
      rotate(head, rotation);
    }
  };
  prepare(q_.row(row), weights.q_norm);
  prepare(k_.row(row), weights.k_norm);
  if (config_.clip_qkv) {
    for (float& v : v_.row(row)) v = std::clamp(v, -*config_.clip_qkv, *config_.clip_qkv);
  }
}

// scores = queries keys^T / sqrt(head_dim); outputs = softmax(scores) values. All query heads of a
// KV head are rows of the same two products.
void Attention::attend(const HeadTask& task, std::int64_t layer, Scratch& scratch) {
  const Segment& segment = *task.segment;
  const std::int64_t head_dim = config_.head_dim;
  const std::int64_t heads_per_kv = config_.num_heads / config_.num_kv_heads;
  const std::int64_t first_row = segment.first_row + task.first_query;
  const std::int64_t first_position = segment.cache->num_tokens() + task.first_query;
  const std::int64_t num_positions = first_position + task.num_queries;  // of the last query
  const std::int64_t num_rows = task.num_queries * heads_per_kv;
  scratch.queries.resize(static_cast<std::size_t>(num_rows * head_dim));
  scratch.scores.resize(static_cast<std::size_t>(num_rows * num_positions));
  scratch.outputs.resize(scratch.queries.size());
  const MatrixView queries(scratch.queries.data(), num_rows, head_dim);
  const MatrixView scores(scratch.scores.data(), num_rows, num_positions);
  const MatrixView outputs(scratch.outputs.data(), num_rows, head_dim);

  // The `heads_per_kv` heads of a token are adjacent in its row.
  const auto begin = static_cast<std::size_t>(task.kv_head * heads_per_kv * head_dim);
  const auto count = static_cast<std::size_t>(heads_per_kv * head_dim);
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
  for (std::int64_t t = 0; t < task.num_queries; ++t) {
    const auto from = q_.row(first_row + t).subspan(begin, count);
    std::ranges::transform(from, queries.row(t * heads_per_kv).data(),
                           [scale](float v) { return v * scale; });
  }
  const GemmGroup score{.x = queries,
                        .weight = segment.cache->keys(layer, task.kv_head).rows(0, num_positions),
                        .out = scores};
  scratch.gemm.run({&score, 1});
  for (std::int64_t row = 0; row < num_rows; ++row) {
    const std::int64_t num_seen = first_position + row / heads_per_kv + 1;
    softmax(scores.row(row).first(static_cast<std::size_t>(num_seen)));
    std::ranges::fill(scores.row(row).subspan(static_cast<std::size_t>(num_seen)), 0.0f);
  }
  const MutableRowsView values = segment.cache->values(layer, task.kv_head);
  const GemmGroup output{
      .x = scores,
      .weight = {values.data(), values.type(), head_dim, num_positions, values.stride()},
      .out = outputs};
  scratch.gemm.run({&output, 1});
  for (std::int64_t t = 0; t < task.num_queries; ++t) {
    std::copy_n(outputs.row(t * heads_per_kv).data(), count,
                q_.row(first_row + t).subspan(begin, count).data());
  }
}

void Attention::run(const AttentionWeights& weights, std::int64_t layer,
                    std::span<const Segment> segments, MatrixView<float> x) {
  check_segments(segments, layer, x.rows(), config_);
  const MatrixView<const float> inputs(x.data(), x.rows(), x.cols());
  q_.reshape(x.rows(), weights.q.rows());
  k_.reshape(x.rows(), weights.k.rows());
  v_.reshape(x.rows(), weights.v.rows());
  const GemmGroup projections[] = {
      {.x = inputs, .weight = weights.q, .bias = weights.q_bias, .out = q_},
      {.x = inputs, .weight = weights.k, .bias = weights.k_bias, .out = k_},
      {.x = inputs, .weight = weights.v, .bias = weights.v_bias, .out = v_}};
  gemm_.run(projections);

  // One task for each token of all segments: in generation each segment is a single token.
  std::vector<std::pair<const Segment*, std::int64_t>> tokens;
  for (const Segment& segment : segments) {
    for (std::int64_t t = 0; t < segment.num_tokens; ++t) tokens.emplace_back(&segment, t);
  }
  const auto head_dim = static_cast<std::size_t>(config_.head_dim);
  gemm_.pool().run(std::ssize(tokens), [&](std::int64_t task, int) {
    const auto [segment, t] = tokens[static_cast<std::size_t>(task)];
    const std::int64_t row = segment->first_row + t, position = segment->cache->num_tokens() + t;
    prepare_row(weights, row, position);
    for (std::int64_t head = 0; head < config_.num_kv_heads; ++head) {
      const auto first = static_cast<std::size_t>(head * config_.head_dim);
      segment->cache->store(layer, head, position, k_.row(row).subspan(first, head_dim),
                            v_.row(row).subspan(first, head_dim));
    }
  });
  std::vector<HeadTask> tasks;
  for (const Segment& segment : segments) {
    // The last queries attend to the most positions and take longest, so they are started first.
    for (std::int64_t block = (segment.num_tokens - 1) / kQueriesPerTask; block >= 0; --block) {
      const std::int64_t first = block * kQueriesPerTask;
      for (std::int64_t head = 0; head < config_.num_kv_heads; ++head) {
        tasks.push_back(
            {&segment, head, first, std::min(kQueriesPerTask, segment.num_tokens - first)});
      }
    }
  }
  gemm_.pool().run(std::ssize(tasks), [&](std::int64_t task, int thread) {
    attend(tasks[static_cast<std::size_t>(task)], layer,
           *scratch_[static_cast<std::size_t>(thread)]);
  });
  const GemmGroup output{.x = q_, .weight = weights.o, .out = x};
  gemm_.run({&output, 1});
}

}  // namespace c2r
