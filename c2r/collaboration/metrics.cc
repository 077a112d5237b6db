// The metrics of one layer from its counts, and their means over a model.
#include "c2r/collaboration/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "c2r/collaboration/checks_internal.h"
#include "c2r/collaboration/limits.h"

namespace c2r {
namespace {

// The fewest of `weights` that hold 90 % of their sum, which is `total`.
std::int64_t fewest_for_90_percent(std::vector<std::int64_t> weights, std::int64_t total) {
  std::ranges::sort(weights, std::ranges::greater{});
  std::int64_t taken = 0, held = 0;
  while (10 * held < 9 * total) {  // far below 2^63, because a row adds up to k * kMaxCountedTokens
    held += weights[static_cast<std::size_t>(taken++)];
  }
  return taken;
}

std::optional<CollaboratorMetrics> collaborator_metrics(const CollaborationMatrix& counts,
                                                        std::int64_t expert) {
  std::vector<std::int64_t> others;
  for (std::int64_t b = 0; b < counts.cols(); ++b) {
    if (b != expert && counts(expert, b) > 0) others.push_back(counts(expert, b));
  }
  if (others.empty()) return std::nullopt;
  const std::int64_t total = std::reduce(others.begin(), others.end());
  double entropy = 0;
  for (const std::int64_t count : others) {
    const double share = static_cast<double>(count) / static_cast<double>(total);
    entropy -= share * std::log(share);
  }
  const double most = std::log(static_cast<double>(counts.cols() - 1));
  const double normalized = most > 0 ? std::min(entropy / most, 1.0) : 0.0;
  return CollaboratorMetrics{
      .effective_collaborators = std::exp(entropy),
      .normalized_entropy = normalized,
      .specialization = 1 - normalized,
      .collaborators_90 = static_cast<double>(fewest_for_90_percent(std::move(others), total))};
}

class CollaboratorMean {
 public:
  void add(const std::optional<CollaboratorMetrics>& m) {
    if (!m) return;
    sum_.effective_collaborators += m->effective_collaborators;
    sum_.normalized_entropy += m->normalized_entropy;
    sum_.specialization += m->specialization;
    sum_.collaborators_90 += m->collaborators_90;
    ++count_;
  }
  std::optional<CollaboratorMetrics> mean() const {
    if (count_ == 0) return std::nullopt;
    return CollaboratorMetrics{.effective_collaborators = sum_.effective_collaborators / count_,
                               .normalized_entropy = sum_.normalized_entropy / count_,
                               .specialization = sum_.specialization / count_,
                               .collaborators_90 = sum_.collaborators_90 / count_};
  }

 private:
  CollaboratorMetrics sum_;
  double count_ = 0;
};

}  // namespace

double imbalance(std::span<const std::int64_t> loads) {
  const auto total = std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
  if (total == 0) return 1.0;
  return static_cast<double>(std::ranges::max(loads)) * static_cast<double>(loads.size()) /
         static_cast<double>(total);
}

LayerMetrics layer_metrics(const CollaborationMatrix& counts, bool has_pairs) {
  check_is_square(counts);
  LayerMetrics layer;
  CollaboratorMean mean;
  std::vector<std::int64_t> loads;
  for (std::int64_t e = 0; e < counts.rows(); ++e) {
    ExpertMetrics expert{.load = counts(e, e)};
    if (has_pairs) expert.collaborators = collaborator_metrics(counts, e);
    mean.add(expert.collaborators);
    layer.num_choices += expert.load;
    loads.push_back(expert.load);
    if (expert.load == 0) ++layer.num_unused_experts;
    if (expert.load > counts(layer.busiest_expert, layer.busiest_expert)) layer.busiest_expert = e;
    layer.experts.push_back(expert);
  }
  layer.collaborators = mean.mean();
  layer.imbalance = imbalance(loads);
  if (layer.num_choices > 0) {
    const auto most = static_cast<double>(counts(layer.busiest_expert, layer.busiest_expert));
    layer.busiest_share = most / static_cast<double>(layer.num_choices);
  }
  return layer;
}

ModelMetrics model_metrics(const CollaborationStatistics& statistics) {
  ModelMetrics model;
  CollaboratorMean mean;
  const auto num_layers = static_cast<double>(statistics.num_layers());
  for (const CollaborationMatrix& counts : statistics.coactivation) {
    model.layers.push_back(layer_metrics(counts, statistics.has_pairs));
    const LayerMetrics& layer = model.layers.back();
    for (const ExpertMetrics& expert : layer.experts) mean.add(expert.collaborators);
    model.max_imbalance = std::max(model.max_imbalance, layer.imbalance);
    model.mean_imbalance += layer.imbalance / num_layers;
    model.mean_busiest_share += layer.busiest_share / num_layers;
  }
  model.collaborators = mean.mean();
  return model;
}

}  // namespace c2r
