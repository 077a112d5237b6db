// Runs prompts and steps of a model in turn, and counts what they multiply and read.
#include "c2r/bench/bench_model.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "c2r/bench/median.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"

namespace c2r {
namespace {

// What passes multiply and read, from the shapes of weights and from what tokens choose.
class CostCounter {
 public:
  explicit CostCounter(const Model& model) : config_(model.config()), weights_(model.weights()) {}

  std::int64_t flop() const { return flop_; }
  std::int64_t weight_bytes() const { return weight_bytes_; }

  /// What a RoutingObserver sees. The first layer stands for all that every token multiplies.
  void add_routing(std::int64_t moe_layer, const Routing& routing) {
    if (moe_layer == 0) add_shared_layers(routing.num_tokens());
    const auto layer =
        static_cast<std::size_t>(config_.moe_layers[static_cast<std::size_t>(moe_layer)]);
    const auto& experts = weights_.layers[layer].moe->experts;
    std::vector<std::int64_t> num_rows(experts.size());
    for (const ExpertId e : routing.topk_idx.all()) {
      if (e != kNoExpert) ++num_rows[index(e)];
    }
    for (std::size_t e = 0; e < experts.size(); ++e) add(experts[e], num_rows[e]);
  }

  /// Of a token that sees `num_positions`: its scores and its sums of values, in all layers.
  void add_attention(std::int64_t num_positions) {
    flop_ +=
        std::int64_t{4} * config_.num_layers * config_.num_heads * config_.head_dim * num_positions;
  }

  void add_logits(std::int64_t num_rows) { add(weights_.output, num_rows); }

 private:
  void add(const RowsView& weight, std::int64_t num_rows) {
    if (num_rows == 0) return;
    flop_ += 2 * weight.rows() * weight.cols() * num_rows;
    weight_bytes_ += weight.num_bytes();
  }

  void add(const ExpertWeights& expert, std::int64_t num_rows) {
    for (const RowsView* w : {&expert.gate, &expert.up, &expert.down}) add(*w, num_rows);
  }

  void add_shared_layers(std::int64_t num_tokens) {
    for (const LayerWeights& layer : weights_.layers) {
      const AttentionWeights& a = layer.attention;
      for (const RowsView* w : {&a.q, &a.k, &a.v, &a.o}) add(*w, num_tokens);
      if (!layer.moe) {
        add(layer.dense, num_tokens);
        continue;
      }
      for (const RowsView* w :
           {&layer.moe->gate, &layer.moe->second_gate, &layer.moe->shared_gate}) {
        add(*w, num_tokens);  // of no outputs where there is none
      }
      if (layer.moe->shared) add(*layer.moe->shared, num_tokens);
    }
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  std::int64_t flop_ = 0, weight_bytes_ = 0;
};

class ModelBench {
 public:
  ModelBench(Engine& engine, const Model& model, const ModelBenchRequest& request)
      : engine_(engine), model_(model), request_(request) {
    const std::int64_t longest = std::max(request.prompt_tokens, request.num_steps);
    for (std::int64_t n = 0; n < std::ranges::max(request.batch_sizes); ++n) {
      caches_.push_back(engine.make_cache(longest));
    }
    std::mt19937_64 rng(mix_bits(request.seed));
    const auto vocab_size = static_cast<std::uint64_t>(model.config().vocab_size);
    tokens_ = Matrix<TokenId>(std::ssize(caches_), longest);
    for (TokenId& token : tokens_.all()) {
      token = TokenId{static_cast<std::int32_t>(uniform_below(vocab_size, rng))};
    }
  }

  /// Runs a phase once.
  void run(ModelBenchPhase& phase) {
    for (KvCache& cache : caches_) cache.truncate(0);
    CostCounter counter(model_);
    const auto begin = std::chrono::steady_clock::now();
    if (phase.name == "prefill") {
      prefill(counter);
    } else {
      decode(phase.batch_size, counter);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    phase.seconds.push_back(seconds.count());
    phase.flop = counter.flop();
    phase.weight_bytes = counter.weight_bytes();
  }

 private:
  void prefill(CostCounter& counter) {
    const auto prompt = tokens_.row(0).first(static_cast<std::size_t>(request_.prompt_tokens));
    engine_.prefill(
        caches_[0], prompt,
        [&](std::int64_t first, MatrixView<const float> states) {
          for (std::int64_t t = 0; t < states.rows(); ++t) counter.add_attention(first + t + 1);
          const bool is_last = first + states.rows() == request_.prompt_tokens;
          if (is_last) compute_logits(states.rows(states.rows() - 1, states.rows()), counter);
        },
        [&](std::int64_t layer, const Routing& routing) { counter.add_routing(layer, routing); });
  }

  void decode(std::int64_t batch_size, CostCounter& counter) {
    for (std::int64_t step = 0; step < request_.num_steps; ++step) {
      std::vector<SequenceSlice> batch;
      for (std::int64_t n = 0; n < batch_size; ++n) {
        batch.push_back({&caches_[static_cast<std::size_t>(n)],
                         tokens_.row(n).subspan(static_cast<std::size_t>(step), 1)});
        counter.add_attention(step + 1);
      }
      const auto states = engine_.forward(batch, [&](std::int64_t layer, const Routing& routing) {
        counter.add_routing(layer, routing);
      });
      compute_logits(states, counter);
    }
  }

  void compute_logits(MatrixView<const float> states, CostCounter& counter) {
    logits_.reshape(states.rows(), model_.config().vocab_size);
    engine_.decoder().logits(states, logits_);
    counter.add_logits(states.rows());
  }

  Engine& engine_;
  const Model& model_;
  const ModelBenchRequest& request_;
  std::vector<KvCache> caches_;
  Matrix<TokenId> tokens_;  // [num_caches, longest]
  Matrix<float> logits_;
};

}  // namespace

void check_request(const ModelBenchRequest& request, const ModelConfig& config) {
  C2R_REQUIRE(request.num_rounds >= 1 && !request.batch_sizes.empty() &&
                  std::ranges::min(request.batch_sizes) >= 1,
              kInvalidArgument, "there must be at least one round, and one sequence in a batch");
  check_length(request.prompt_tokens, config);
  check_length(request.num_steps, config);
}

PhaseRates rates_of(const ModelBenchPhase& phase) {
  C2R_REQUIRE(!phase.seconds.empty(), kInvalidArgument, "no round of the phase was timed");
  const double median_s = median(phase.seconds);
  const auto tokens = static_cast<double>(phase.num_tokens);
  return {.tokens_per_s = tokens / median_s,
          .flop_per_s = static_cast<double>(phase.flop) / median_s,
          .weight_bytes_per_s = static_cast<double>(phase.weight_bytes) / median_s,
          .slowest_tokens_per_s = tokens / std::ranges::max(phase.seconds),
          .fastest_tokens_per_s = tokens / std::ranges::min(phase.seconds)};
}

std::vector<ModelBenchPhase> bench_model(Engine& engine, const Model& model,
                                         const ModelBenchRequest& request, Progress& progress) {
  std::vector<ModelBenchPhase> phases;
  if (engine.is_first_rank()) {
    check_request(request, model.config());
    ModelBench bench(engine, model, request);
    ModelBenchPhase prefill{
        .name = "prefill", .batch_size = 1, .num_tokens = request.prompt_tokens};
    phases.push_back(prefill);
    for (const std::int64_t size : request.batch_sizes) {
      phases.push_back(
          {.name = "decode", .batch_size = size, .num_tokens = size * request.num_steps});
    }
    bench.run(prefill);
    const std::int64_t num_runs = std::ssize(phases) * request.num_rounds;
    std::int64_t num_done = 0;
    for (std::int32_t round = 0; round < request.num_rounds; ++round) {
      for (ModelBenchPhase& phase : phases) {
        progress.update(num_done++, num_runs);
        bench.run(phase);
      }
    }
  }
  engine.finish_passes();
  return phases;
}

}  // namespace c2r
