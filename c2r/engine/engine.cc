// Cuts prompts into passes, and lets ranks agree before each pass.
#include "c2r/engine/engine.h"

#include <algorithm>
#include <array>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/engine/finite_internal.h"
#include "c2r/transport/collectives.h"

namespace c2r {

namespace {

std::int64_t checked_pass_tokens(const EngineOptions& options) {
  C2R_REQUIRE(options.max_pass_tokens >= 1, kInvalidArgument,
              "max_pass_tokens is {}, but must be at least 1", options.max_pass_tokens);
  return options.max_pass_tokens;
}

}  // namespace

Engine::Engine(const Model& model, const EngineOptions& options)
    : checkpoint_(&model.checkpoint()),
      max_pass_tokens_(checked_pass_tokens(options)),
      pool_(options.num_threads),
      decoder_(model.config(), model.weights(), options.arithmetic, pool_) {}

Engine::Engine(const Model& model, const EngineOptions& options, Transport& transport,
               const ExpertParallelOptions& expert_parallel)
    : checkpoint_(&model.checkpoint()),
      max_pass_tokens_(checked_pass_tokens(options)),
      pool_(options.num_threads),
      transport_(&transport),
      experts_(std::make_unique<ExpertParallelExperts>(model.config(), options.arithmetic, pool_,
                                                       transport, expert_parallel)),
      decoder_(model.config(), model.weights(), options.arithmetic, pool_, experts_.get()) {
  if (expert_parallel.num_chunks) return;
  chunks_.emplace(double(config().top_k) * transport.ep_size() / config().num_experts);
}

KvCache Engine::make_cache(std::int64_t capacity) const {
  return {decoder_.config(), decoder_.arithmetic(), capacity};
}

void Engine::follow_homes(const HomeSignature& signature) {
  const auto& layers = config().moe_layers;
  const auto found = std::ranges::find(layers, signature.layer_index);
  const std::int64_t ep_size = transport_ == nullptr ? 1 : transport_->ep_size();
  C2R_REQUIRE(found != layers.end() && signature.weights.cols() == config().num_experts &&
                  signature.weights.rows() == ep_size,
              kInvalidArgument,
              "the signature is of layer {} with {} experts, for {} ranks, which the model on {} "
              "ranks does not have",
              signature.layer_index, signature.weights.cols(), signature.weights.rows(), ep_size);
  C2R_REQUIRE(!signature.token_weights || std::ssize(signature.token_weights->of_others) == ep_size,
              kInvalidArgument, "the signature has token weights for {} ranks, but there are {}",
              signature.token_weights->of_others.size(), ep_size);
  home_signature_ = signature;
  home_layer_ = found - layers.begin();
}

void Engine::prefill(KvCache& cache, std::span<const TokenId> tokens, const PassObserver& on_pass,
                     const RoutingObserver& on_routing) {
  for (std::int64_t first = 0; first < std::ssize(tokens); first += max_pass_tokens_) {
    const auto count = std::min(max_pass_tokens_, std::ssize(tokens) - first);
    const SequenceSlice slice{
        &cache, tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count))};
    const auto states = forward({&slice, 1}, on_routing);
    if (on_pass) on_pass(first, states);
  }
}

MatrixView<const float> Engine::forward(std::span<const SequenceSlice> batch,
                                        const RoutingObserver& on_routing) {
  std::int64_t num_tokens = 0;
  for (const SequenceSlice& slice : batch) num_tokens += std::ssize(slice.tokens);
  agree_on_pass(num_tokens);
  num_tokens_ += num_tokens;
  try {
    return decoder_.forward(batch, on_routing);
  } catch (const Error& e) {
    // A gate has refused logits that are not finite.
    if (e.code() == ErrorCode::kInvalidFile) checkpoint_->check_finite();
    throw;
  }
}

void Engine::check_logits(std::span<const float> logits) const {
  if (are_finite(logits)) return;
  checkpoint_->check_finite();
  require_finite(logits);
}

// @returns whether any rank has tokens for the next pass. The same exchange carries the times of
// the last pass: of the negative waiting times the largest is that of the rank that waited least.
bool Engine::agree_on_pass(std::int64_t num_tokens) {
  if (transport_ == nullptr) return num_tokens > 0;
  const auto nanoseconds = [](PipelineTimes::Duration duration) {
    return std::int64_t{std::chrono::nanoseconds(duration).count()};
  };
  const PipelineTimes times = experts_->take_times();
  std::array<std::int64_t, 3> most = {num_tokens,
                                      -nanoseconds(times.wait_dispatch + times.wait_combine),
                                      nanoseconds(times.experts)};
  all_reduce(*transport_, most, Reduction::kMax, fmt::format("pass {}", num_passes_++));
  choose_chunks(most[0], -1e-9 * double(most[1]), 1e-9 * double(most[2]));
  return most[0] > 0;
}

// Chooses the chunks of a pass of `num_tokens` tokens from the times of the last pass.
void Engine::choose_chunks(std::int64_t num_tokens, double waited_s, double computed_s) {
  if (!chunks_) return;
  const auto num_layers = double(config().num_moe_layers());
  chunks_->add(std::exchange(last_tokens_, num_tokens), waited_s / num_layers,
               computed_s / num_layers);
  experts_->set_num_chunks(chunks_->choose(num_tokens));
}

std::span<const std::int64_t> Engine::sent_row_bytes() const {
  if (experts_ == nullptr) return {};
  return experts_->sent_row_bytes();
}

void Engine::finish_passes() {
  while (agree_on_pass(0)) (void)decoder_.forward({});
}

}  // namespace c2r
