// Checks the parts of a plan against each other, and reads and writes its file.
#include "c2r/plan/plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// The least and the largest T of lists that a layer can have.
std::int32_t least_t(const Plan& plan) {
  return std::max(1, plan.top_k - 1);
}

void check_collaborators(const Plan& plan, const PlanLayer& layer) {
  const std::int64_t rows = layer.collaborators.rows(), top_t = layer.collaborators.cols();
  if (!plan.top_t) {
    C2R_REQUIRE(rows == 0 && top_t == 0, kInvalidArgument,
                "layer {} has {} x {} collaborators, but the plan has no top_t", layer.layer_index,
                rows, top_t);
    return;
  }
  C2R_REQUIRE(rows == plan.num_experts && least_t(plan) <= top_t && top_t < plan.num_experts,
              kInvalidArgument,
              "layer {} has {} x {} collaborators, but top_t asks for {} lists of {} to {}",
              layer.layer_index, rows, top_t, plan.num_experts, least_t(plan),
              plan.num_experts - 1);
  for (std::int64_t e = 0; e < rows; ++e) {
    const auto list = layer.collaborators.row(e);
    for (auto entry = list.begin(); entry != list.end(); ++entry) {
      const auto other = static_cast<std::int32_t>(*entry);
      C2R_REQUIRE(0 <= other && other < plan.num_experts && other != e &&
                      std::find(list.begin(), entry, *entry) == entry,
                  kInvalidArgument,
                  "layer {}: expert {} has the collaborator {}, but they must be other experts "
                  "below {}, each once",
                  layer.layer_index, e, other, plan.num_experts);
    }
  }
}

void check_layer(const Plan& plan, const PlanLayer& layer) {
  const Placement& placement = layer.placement;
  C2R_REQUIRE(
      placement.num_experts == plan.num_experts && placement.ep_size() == plan.cluster.ep_size(),
      kInvalidArgument,
      "layer {} places {} experts on {} ranks, but the plan is for {} experts and {} ranks",
      layer.layer_index, placement.num_experts, placement.ep_size(), plan.num_experts,
      plan.cluster.ep_size());
  try {
    check_wasted_slots(placement, layer.wasted_slots);
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "layer {}: {}", layer.layer_index, e.what());
  }
  check_collaborators(plan, layer);
}

void check_top_t_is_largest(const Plan& plan) {
  if (!plan.top_t) return;
  std::int64_t largest = 0;
  for (const PlanLayer& layer : plan.layers) {
    largest = std::max(largest, layer.collaborators.cols());
  }
  C2R_REQUIRE(*plan.top_t == largest, kInvalidArgument,
              "top_t is {}, but the longest lists have {} collaborators", *plan.top_t, largest);
}

bool is_content_hash(std::string_view text) {
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

void check_token_weights(const Plan& plan, const TokenWeights& token_weights) {
  const auto& [ids, weights, of_others] = token_weights;
  C2R_REQUIRE(std::ranges::adjacent_find(ids, std::greater_equal{}) == ids.end() &&
                  (ids.empty() || ids.front() >= TokenId{0}),
              kInvalidArgument, "the ids of the token weights must ascend from 0 or more");
  C2R_REQUIRE(weights.rows() == std::ssize(ids) && weights.cols() == plan.cluster.ep_size() &&
                  std::ssize(of_others) == plan.cluster.ep_size(),
              kInvalidArgument,
              "there are {} x {} token weights and {} of other ids, but {} ids and {} ranks",
              weights.rows(), weights.cols(), of_others.size(), ids.size(), plan.cluster.ep_size());
  const auto is_finite = [](double weight) { return std::isfinite(weight); };
  C2R_REQUIRE(
      std::ranges::all_of(weights.all(), is_finite) && std::ranges::all_of(of_others, is_finite),
      kInvalidArgument, "a token weight is not finite");
}

void check_signature(const Plan& plan, const HomeSignature& signature) {
  C2R_REQUIRE(std::ranges::count(plan.layers, signature.layer_index, &PlanLayer::layer_index) == 1,
              kInvalidArgument, "the signature is of layer {}, which the plan does not have",
              signature.layer_index);
  C2R_REQUIRE(signature.num_tokens >= 1, kInvalidArgument,
              "the signature looks at {} tokens, but must look at 1 or more", signature.num_tokens);
  const Matrix<double>& weights = signature.weights;
  C2R_REQUIRE(weights.rows() == plan.cluster.ep_size() && weights.cols() == plan.num_experts,
              kInvalidArgument,
              "the signature has {} x {} weights, but the plan has {} ranks and {} experts",
              weights.rows(), weights.cols(), plan.cluster.ep_size(), plan.num_experts);
  for (const double weight : weights.all()) {
    C2R_REQUIRE(std::isfinite(weight), kInvalidArgument,
                "the signature has the weight {}, but weights are finite", weight);
  }
  if (signature.token_weights) check_token_weights(plan, *signature.token_weights);
}

void check_homes(const Plan& plan, const PlanHomes& homes) {
  C2R_REQUIRE(!homes.sequences.empty() || homes.signature, kInvalidArgument,
              "the homes have neither sequences nor a signature");
  for (const auto& [hash, ranks] : homes.sequences) {
    C2R_REQUIRE(is_content_hash(hash), kInvalidArgument,
                "homes of sequences have the trace_hash '{}', which is not 16 hexadecimal digits",
                shown(hash));
    C2R_REQUIRE(std::ranges::count(homes.sequences, hash, &SequenceHomes::trace_hash) == 1,
                kInvalidArgument, "the homes name the trace {} twice", hash);
    C2R_REQUIRE(!ranks.empty(), kInvalidArgument, "the homes of the trace {} are of no sequence",
                hash);
    for (const RankId rank : ranks) {
      const auto home = static_cast<std::int32_t>(rank);
      C2R_REQUIRE(0 <= home && home < plan.cluster.ep_size(), kInvalidArgument,
                  "a sequence of the trace {} has its home on rank {}, but there are ranks 0 to {}",
                  hash, home, plan.cluster.ep_size() - 1);
    }
  }
  if (homes.signature) check_signature(plan, *homes.signature);
}

void check_prediction(const Plan& plan, const Prediction& prediction) {
  const auto check_column = [&](std::string_view name, const std::vector<double>& column) {
    C2R_REQUIRE(std::ssize(column) == plan.num_layers(), kInvalidArgument,
                "a prediction has {} values of {}, but the plan has {} layers", column.size(), name,
                plan.num_layers());
    for (const double value : column) {
      C2R_REQUIRE(std::isfinite(value) && value >= 0, kInvalidArgument,
                  "a prediction's {} is {}, but must be a number of at least 0", name, value);
    }
  };
  C2R_REQUIRE(prediction.num_tokens >= 0, kInvalidArgument, "a prediction is of {} tokens",
              prediction.num_tokens);
  const bool knows_copies = prediction.has_copies() || !prediction.wire_copies_per_token.empty() ||
                            !prediction.inter_node_copies_per_token.empty() ||
                            !prediction.predicted_layer_time_s.empty();
  if (knows_copies) {  // then all of them
    check_column("copies_per_token", prediction.copies_per_token);
    check_column("wire_copies_per_token", prediction.wire_copies_per_token);
    check_column("inter_node_copies_per_token", prediction.inter_node_copies_per_token);
  }
  C2R_REQUIRE(prediction.homes != Homes::kSignature || (plan.homes && plan.homes->signature),
              kInvalidArgument, "a prediction has homes by signature, but the plan has none");
  check_column("imbalance", prediction.imbalance);
  if (!prediction.predicted_layer_time_s.empty()) {
    check_column("predicted_layer_time_s", prediction.predicted_layer_time_s);
  }
}

void check_provenance(const Provenance& provenance) {
  for (const PlanInput& input : provenance.inputs) {
    C2R_REQUIRE(!input.part || input.role == "trace", kInvalidArgument,
                "the input '{}' has the part {}, but only traces have parts", shown(input.name),
                name_of(*input.part));
  }
  C2R_REQUIRE(provenance.seed <= INT64_MAX, kInvalidArgument,
              "the seed is {}, but JSON numbers end at 2^63 - 1", provenance.seed);
  for (const auto& [name, value] : provenance.options) {
    const auto* const number = std::get_if<double>(&value);
    C2R_REQUIRE(number == nullptr || std::isfinite(*number), kInvalidArgument,
                "the option {} is {}, which JSON cannot say", name, *number);
    C2R_REQUIRE(std::ranges::count(provenance.options, name, &PlanOption::name) == 1,
                kInvalidArgument, "the option {} is named twice", name);
  }
}

}  // namespace

std::string PlanInput::text() const {
  return part ? fmt::format("{}, {}", name, name_of(*part)) : name;
}

RankId home_of(const HomeSignature& signature, MatrixView<const ExpertId> topk_idx) {
  const std::int64_t num_tokens = std::min(signature.num_tokens, topk_idx.rows());
  const MatrixView<const ExpertId> first = topk_idx.rows(0, num_tokens);
  const auto num_experts = static_cast<std::int32_t>(signature.weights.cols());
  check_topk_idx(first, num_experts, topk_idx.cols());
  std::vector<double> scores(static_cast<std::size_t>(signature.weights.rows()));
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (const ExpertId e : first.row(t)) {
      if (e == kNoExpert) continue;
      for (std::size_t rank = 0; rank < scores.size(); ++rank) {
        scores[rank] += signature.weights(std::int64_t(rank), static_cast<std::int64_t>(e));
      }
    }
  }
  const auto best = std::ranges::max_element(scores);
  return RankId{static_cast<std::int32_t>(best - scores.begin())};
}

Plan plan_of(const TraceHeader& header, const Cluster& cluster, std::vector<Placement> placements,
             Provenance provenance) {
  C2R_REQUIRE(std::ssize(placements) == header.num_layers(), kInvalidArgument,
              "there are {} placements for {} layers", placements.size(), header.num_layers());
  Plan plan{.model = header.model,
            .num_experts = header.num_experts,
            .top_k = header.top_k,
            .cluster = cluster,
            .provenance = std::move(provenance)};
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    auto wasted = empty_wasted_slots(placements[layer].slots);
    plan.layers.push_back({.layer_index = header.layer_indices[layer],
                           .placement = std::move(placements[layer]),
                           .wasted_slots = std::move(wasted)});
  }
  return plan;
}

std::optional<std::string> wasted_slots_text(const Plan& plan) {
  std::size_t num_slots = 0, num_layers = 0;
  const PlanLayer* first = nullptr;
  for (const PlanLayer& layer : plan.layers) {
    if (layer.wasted_slots.empty()) continue;
    if (first == nullptr) first = &layer;
    num_slots += layer.wasted_slots.size();
    ++num_layers;
  }
  if (first == nullptr) return std::nullopt;
  const WastedSlot& slot = first->wasted_slots[0];
  return fmt::format(
      "{} slots in {} of {} layers are wasted: their rank holds the expert in another slot, too "
      "(the "
      "first is slot {} of rank {} in layer {})",
      num_slots, num_layers, plan.num_layers(), slot.slot, static_cast<std::int32_t>(slot.rank),
      first->layer_index);
}

void check_plan(const Plan& plan) {
  C2R_REQUIRE(1 <= plan.num_experts && plan.num_experts <= kMaxExperts, kInvalidArgument,
              "num_experts is {}, but must be in [1, {}]", plan.num_experts, kMaxExperts);
  C2R_REQUIRE(1 <= plan.top_k && plan.top_k <= std::min(kMaxTopK, plan.num_experts),
              kInvalidArgument, "top_k is {}, but must be in [1, {}]", plan.top_k,
              std::min(kMaxTopK, plan.num_experts));
  check_cluster(plan.cluster);
  C2R_REQUIRE(!plan.layers.empty() && plan.layers.size() <= kMaxLayers, kInvalidArgument,
              "a plan has {} layers, but must have from 1 to {}", plan.layers.size(), kMaxLayers);
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const std::int32_t least = l == 0 ? 0 : plan.layers[l - 1].layer_index + 1;
    const std::int32_t layer = plan.layers[l].layer_index;
    C2R_REQUIRE(least <= layer && layer <= kMaxLayerIndex, kInvalidArgument,
                "layer_index {} must be in [{}, {}]: layers ascend", layer, least, kMaxLayerIndex);
    check_layer(plan, plan.layers[l]);
  }
  check_top_t_is_largest(plan);
  if (plan.homes) check_homes(plan, *plan.homes);
  for (const Prediction& prediction : plan.predictions) check_prediction(plan, prediction);
  check_provenance(plan.provenance);
}

Prediction make_prediction(const TrafficModel& traffic, std::span<const Volume> volumes,
                           std::span<const PredictedLayerTime> times) {
  C2R_REQUIRE(!volumes.empty() && (times.empty() || times.size() == volumes.size()),
              kInvalidArgument,
              "a prediction needs a volume and none or one time a layer, not {} "
              "and {}",
              volumes.size(), times.size());
  Prediction prediction{.num_tokens = volumes.front().num_tokens,
                        .copy_mode = traffic.copy_mode,
                        .replica_rule = traffic.replica_rule,
                        .homes = traffic.homes};
  for (const Volume& v : volumes) {
    C2R_REQUIRE(v.num_tokens == prediction.num_tokens, kInvalidArgument,
                "the layers of a prediction have {} and {} tokens, but must have the same number",
                prediction.num_tokens, v.num_tokens);
    prediction.is_exact &= v.is_exact;
    prediction.copies_per_token.push_back(v.per_token(v.copies_to_experts));
    prediction.wire_copies_per_token.push_back(v.per_token(v.wire_copies()));
    prediction.inter_node_copies_per_token.push_back(v.per_token(v.inter_node_copies));
    prediction.imbalance.push_back(imbalance(v.choices));
  }
  for (const PredictedLayerTime& time : times) {
    prediction.predicted_layer_time_s.push_back(time.predicted_total_s);
  }
  return prediction;
}

Plan read_plan(const std::filesystem::path& path) {
  C2R_REQUIRE(!is_safetensors(path), kInvalidFile,
              "{}: is not a plan but a safetensors file, as traces are; plans are JSON",
              path.string());
  return parse_plan(read_text_file(path), path.string());
}

void write_plan(const Plan& plan, const std::filesystem::path& path) {
  write_text_file(path, plan_to_text(plan));
}

}  // namespace c2r
