// Runs a model over windows of text on all ranks, and writes their choices in the order of one
// process.
#include "c2r/engine/profile.h"

#include <algorithm>
#include <span>

#include "c2r/core/error.h"
#include "c2r/engine/ranks/agreement.h"
#include "c2r/engine/ranks/distribute.h"
#include "c2r/trace/trace.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

// What the tokens of one window chose.
struct WindowChoices {
  std::vector<ExpertId> topk_idx;   // [num_moe_layers, num_tokens, top_k]
  std::vector<float> topk_weights;  // the same
  std::vector<TokenId> token_ids;   // [num_tokens]
};

WindowChoices choices_of(Engine& engine, const std::vector<TokenId>& window) {
  const ModelConfig& config = engine.config();
  const auto layer_size = window.size() * static_cast<std::size_t>(config.top_k);
  const auto num_layers = static_cast<std::size_t>(config.num_moe_layers());
  WindowChoices choices{std::vector<ExpertId>(num_layers * layer_size),
                        std::vector<float>(num_layers * layer_size), window};
  if (!window.empty()) {
    std::vector<std::size_t> ends;  // of each layer
    for (std::size_t layer = 0; layer < num_layers; ++layer) ends.push_back(layer * layer_size);
    KvCache cache = engine.make_cache(std::ssize(window));
    engine.prefill(cache, window, {}, [&](std::int64_t moe_layer, const Routing& routing) {
      auto& end = ends[static_cast<std::size_t>(moe_layer)];
      std::ranges::copy(routing.topk_idx.all(), choices.topk_idx.begin() + std::ptrdiff_t(end));
      std::ranges::copy(routing.topk_weights.all(),
                        choices.topk_weights.begin() + std::ptrdiff_t(end));
      end += routing.topk_idx.all().size();
    });
  }
  engine.finish_passes();
  return choices;
}

// What every rank's window chose, on rank 0; elsewhere nothing. [ep_size]
std::vector<WindowChoices> gather_choices(Transport* transport, WindowChoices mine) {
  std::vector<WindowChoices> all;
  if (transport == nullptr) {
    all.push_back(std::move(mine));
    return all;
  }
  auto topk_idx = gather<ExpertId>(*transport, mine.topk_idx, "choices");
  auto topk_weights = gather<float>(*transport, mine.topk_weights, "weights of choices");
  auto token_ids = gather<TokenId>(*transport, mine.token_ids, "token ids");
  for (std::size_t rank = 0; rank < topk_idx.size(); ++rank) {
    all.push_back(
        {std::move(topk_idx[rank]), std::move(topk_weights[rank]), std::move(token_ids[rank])});
  }
  return all;
}

// Appends one window. @returns its number of tokens
std::int64_t append(const WindowChoices& choices, const TraceHeader& header, bool records_token_ids,
                    TraceWriter& writer) {
  const auto layer_size = choices.topk_idx.size() / static_cast<std::size_t>(header.num_layers());
  if (layer_size == 0) return 0;
  writer.start_sequence();
  for (std::int64_t layer = 0; layer < header.num_layers(); ++layer) {
    const std::size_t begin = static_cast<std::size_t>(layer) * layer_size;
    writer.append(layer, std::span(choices.topk_idx).subspan(begin, layer_size),
                  std::span(choices.topk_weights).subspan(begin, layer_size), "the model");
  }
  if (records_token_ids) writer.append_token_ids(choices.token_ids, "the model");
  return static_cast<std::int64_t>(layer_size) / header.top_k;
}

}  // namespace

void check_request(const ProfileRequest& request, const ModelConfig& config) {
  C2R_REQUIRE(1 <= request.window && request.window <= config.max_positions, kInvalidArgument,
              "the window is {}, but the model has positions for 1 to {} tokens", request.window,
              config.max_positions);
  C2R_REQUIRE(request.max_tokens.value_or(0) >= 0, kInvalidArgument,
              "max_tokens is {}, but must be at least 0", request.max_tokens.value_or(0));
}

ProfileResult profile(Engine& engine, const NextSequence& next, const ProfileRequest& request,
                      Progress& progress) {
  const ModelConfig& config = engine.config();
  check_request(request, config);
  const TraceHeader header{.model = request.model_name,
                           .num_experts = config.num_experts,
                           .top_k = config.top_k,
                           .layer_indices = config.moe_layers};
  std::optional<TraceWriter> writer;
  if (engine.is_first_rank()) writer.emplace(request.output, header, /*has_weights=*/true);
  Windows windows(next, request.window, request.max_tokens.value_or(INT64_MAX));
  const auto next_item = [&]() -> std::optional<WorkItem> {
    while (const auto window = windows.next()) {
      if (!window->tokens.empty()) return work_item_of(window->tokens);
    }
    return std::nullopt;
  };
  ProfileResult result;
  while (const auto item = distribute(engine.transport(), next_item)) {
    for (const WindowChoices& choices :
         gather_choices(engine.transport(), choices_of(engine, tokens_of(*item)))) {
      const std::int64_t num_tokens = append(choices, header, request.records_token_ids, *writer);
      result.num_tokens += num_tokens;
      result.num_sequences += num_tokens > 0 ? 1 : 0;
    }
    progress.update(result.num_tokens, request.max_tokens.value_or(0));
  }
  agree_on_errors(engine, "end of the trace", [&] {
    if (!writer) return;
    C2R_REQUIRE(result.num_tokens > 0, kInvalidArgument, "there is no token to profile");
    writer->finish();
  });
  return result;
}

}  // namespace c2r
