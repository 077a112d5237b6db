#include "c2r/plan/plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/error.h"
#include "c2r/io/file.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

void check_collaborators(const Plan& plan, const PlanLayer& layer) {
  const std::int64_t rows = plan.top_t ? plan.num_experts : 0, cols = plan.top_t.value_or(0);
  C2R_REQUIRE(layer.collaborators.rows() == rows && layer.collaborators.cols() == cols,
              kInvalidArgument, "layer {} has {} x {} collaborators, but top_t asks for {} x {}",
              layer.layer_index, layer.collaborators.rows(), layer.collaborators.cols(), rows,
              cols);
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
    check_placement(placement);
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "layer {}: {}", layer.layer_index, e.what());
  }
  check_collaborators(plan, layer);
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
  check_column("copies_per_token", prediction.copies_per_token);
  check_column("wire_copies_per_token", prediction.wire_copies_per_token);
  check_column("inter_node_copies_per_token", prediction.inter_node_copies_per_token);
  check_column("imbalance", prediction.imbalance);
  if (!prediction.predicted_layer_time_s.empty()) {
    check_column("predicted_layer_time_s", prediction.predicted_layer_time_s);
  }
}

void check_provenance(const Provenance& provenance) {
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
    plan.layers.push_back(
        {.layer_index = header.layer_indices[layer], .placement = std::move(placements[layer])});
  }
  return plan;
}

void check_plan(const Plan& plan) {
  C2R_REQUIRE(1 <= plan.num_experts && plan.num_experts <= kMaxExperts, kInvalidArgument,
              "num_experts is {}, but must be in [1, {}]", plan.num_experts, kMaxExperts);
  C2R_REQUIRE(1 <= plan.top_k && plan.top_k <= std::min(kMaxTopK, plan.num_experts),
              kInvalidArgument, "top_k is {}, but must be in [1, {}]", plan.top_k,
              std::min(kMaxTopK, plan.num_experts));
  C2R_REQUIRE(
      !plan.top_t || (std::max(1, plan.top_k - 1) <= *plan.top_t && *plan.top_t < plan.num_experts),
      kInvalidArgument, "top_t is {}, but must be in [{}, {}] for top_k {}", plan.top_t.value_or(0),
      std::max(1, plan.top_k - 1), plan.num_experts - 1, plan.top_k);
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
  for (const Prediction& prediction : plan.predictions) check_prediction(plan, prediction);
  check_provenance(plan.provenance);
}

Prediction make_prediction(std::span<const Volume> volumes,
                           std::span<const PredictedLayerTime> times) {
  C2R_REQUIRE(!volumes.empty() && (times.empty() || times.size() == volumes.size()),
              kInvalidArgument,
              "a prediction needs a volume and none or one time a layer, not {} "
              "and {}",
              volumes.size(), times.size());
  const Volume& first = volumes.front();
  Prediction prediction{.num_tokens = first.num_tokens,
                        .copy_mode = first.mode,
                        .replica_rule = first.rule,
                        .homes = first.homes};
  for (const Volume& v : volumes) {
    C2R_REQUIRE(v.mode == first.mode && v.rule == first.rule && v.homes == first.homes &&
                    v.num_tokens == first.num_tokens,
                kInvalidArgument,
                "the volumes of a prediction differ in mode, rule, homes or tokens");
    prediction.is_exact &= v.is_exact;
    prediction.copies_per_token.push_back(v.per_token(v.copies_to_experts()));
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
