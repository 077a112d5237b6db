// Metrics of pair counts: how uneven the load is, and how many collaborators an expert has.
//
// For a layer with pair counts C, whose diagonal C[e][e] is the load of e:
//   imbalance                max over e of C[e][e], divided by the mean over e; 1 without any load
//   busiest share            max over e of C[e][e], divided by the sum over e
// and for an expert e with p[b] = C[e][b] / (sum over b != e of C[e][b]), its collaborators'
// shares:
//   effective collaborators  exp(H), where H = -(sum over b != e of p[b] ln p[b])
//   normalized entropy       H / ln(num_experts - 1): 1 if all others are collaborators alike
//   specialization           1 - normalized entropy: 1 if there is one collaborator only
//   collaborators for 90 %   the fewest experts b whose p[b] add up to 0.9 or more
// An expert that was never chosen together with another has none of the last four, and is left out
// of means over experts. Entropies are in nats.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/collaboration/collaboration.h"

namespace c2r {

struct CollaboratorMetrics {
  double effective_collaborators = 0;  // in [1, num_experts - 1]
  double normalized_entropy = 0;       // in [0, 1]; 0 where num_experts is 2
  double specialization = 0;           // in [0, 1]
  double collaborators_90 = 0;         // a whole number for an expert, fractional for a mean
};

struct ExpertMetrics {
  std::int64_t load = 0;  // tokens
  std::optional<CollaboratorMetrics> collaborators;
};

struct LayerMetrics {
  std::int64_t num_choices = 0;  // sum of the loads
  double imbalance = 1;
  double busiest_share = 0;                          // 0 where nothing was chosen
  std::int64_t busiest_expert = 0;                   // the lowest id among equals
  std::int64_t num_unused_experts = 0;               // with load 0
  std::optional<CollaboratorMetrics> collaborators;  // mean over the experts that have any
  std::vector<ExpertMetrics> experts;                // [num_experts]
};

struct ModelMetrics {
  double mean_imbalance = 0, max_imbalance = 0;      // over layers
  double mean_busiest_share = 0;                     // over layers
  std::optional<CollaboratorMetrics> collaborators;  // mean over all experts of all layers
  std::vector<LayerMetrics> layers;                  // [num_layers]
};

/// @param loads of experts or of ranks
/// @returns the largest load divided by the mean load; 1, which is perfect, without any load
double imbalance(std::span<const std::int64_t> loads);

/// @param has_pairs false: only the diagonal of `counts` is read
/// @returns the metrics of one layer
/// @throws Error(kInvalidArgument) if `counts` is not square
LayerMetrics layer_metrics(const CollaborationMatrix& counts, bool has_pairs);

/// @returns the metrics of all layers and their means
/// @throws as layer_metrics()
///
/// Cost: O(num_layers * num_experts^2 log num_experts).
ModelMetrics model_metrics(const CollaborationStatistics& statistics);

}  // namespace c2r
