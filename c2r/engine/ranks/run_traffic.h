// What the ranks of a run have computed and sent, and what their plan predicts of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/engine/engine.h"
#include "c2r/model/moe/expert_parallel.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/traffic_model.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// Bytes of rows that cross links, of one token in one layer with experts; dispatch and combine
/// together.
struct LinkBytes {
  double intra_node = 0;  // between ranks of a node
  double inter_node = 0;

  double wire() const { return intra_node + inter_node; }
};

/// @returns the bytes between all ranks together
/// @param bytes [ep_size, ep_size], (src, dst)
std::int64_t total_bytes(const Matrix<std::int64_t>& bytes);

struct RunTraffic {
  Cluster cluster;
  std::int64_t num_tokens = 0;      // that were appended to sequences, on all ranks
  std::int64_t num_layers = 0;      // with experts
  double elapsed_s = 0;             // on rank 0
  Matrix<std::int64_t> row_bytes;   // [ep_size, ep_size], (src, dst): rows of dispatch and combine
  Matrix<std::int64_t> sent_bytes;  // [ep_size, ep_size], (src, dst): rows and all else

  /// @returns tokens a second; 0 if no time has passed
  double tokens_per_s() const;
  /// @returns `bytes` of one token and layer; 0 without tokens or layers
  double per_token(std::int64_t bytes) const;
  LinkBytes row_bytes_per_token() const;
  /// @returns the bytes per token and layer of what is no row: which rows go where, agreements of
  ///          ranks, work and results
  double other_bytes_per_token() const;
};

/// Measures the work of an engine on ranks, from its construction to finish().
class RunMeter {
 public:
  /// @param engine must outlive this object, and is one rank of several
  RunMeter(Engine& engine, const Cluster& cluster);

  /// Ends the measurement. Collective.
  /// @returns the traffic of all ranks on rank 0; on the other ranks an object without tokens
  /// @throws as Exchange::wait()
  /// Cost: two messages from each rank to rank 0, of 8 bytes, and of 8 bytes for each two ranks.
  RunTraffic finish();

 private:
  using Clock = std::chrono::steady_clock;

  std::vector<std::int64_t> counts() const;

  Engine& engine_;
  Cluster cluster_;
  std::vector<std::int64_t> before_;
  Clock::time_point start_;
};

/// What a plan predicts of each token of a run, from the tokens of a trace.
struct PredictedTraffic {
  LinkBytes row_bytes_per_token;
  std::string trace;
  Homes homes = Homes::kUniform;
};

/// @param how how the run sends rows, with its cluster
/// @param hidden the values of a row
/// @returns the prediction that the plan makes of itself; nothing if it has none for this copy mode
///          and replica rule, or only loads were counted
std::optional<PredictedTraffic> predicted_traffic(const Plan& plan, const DispatchOptions& how,
                                                  std::int64_t hidden);

}  // namespace c2r
