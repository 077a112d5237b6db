// Times one MoE layer in the memory of devices: what is computed, on what, and what is told of it.
//
// Before anything is timed, each variant's results are compared with experts of the host. Then the
// variants take turns; a round lasts until the slowest rank's device is done. Phases are timed in
// rounds of their own, which wait for the device after each step, so nothing overlaps in them.
// Shared experts are left out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "c2r/bench/layer_problem.h"
#include "c2r/core/cuda/device_stream.h"
#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/dispatch/cuda/device_routes.h"
#include "c2r/dispatch/cuda/device_row_mover.h"
#include "c2r/experts/cuda/device_experts.h"
#include "c2r/routing/cuda/device_router.h"
#include "c2r/transport/device/stream_network.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// What one rank's part of a layer runs on.
struct BenchDevice {
  std::string name, network_name;  // "NVIDIA H200", "staged"
  double copy_bytes_per_s = 0;     // measured: bytes read and written
  std::unique_ptr<DeviceStream> compute, travel;
  std::unique_ptr<GroupedCalls> calls;  // of the network; may be null
  std::unique_ptr<DeviceNetwork> network;
  std::unique_ptr<RowLauncher> row_launcher;
  std::unique_ptr<RouteLauncher> route_launcher;
  std::unique_ptr<SelectLauncher> select_launcher;
  std::unique_ptr<ExpertLauncher> expert_launcher;
  std::unique_ptr<GroupedProducts> products;
};

/// Makes the device of a rank. Collective.
using MakeBenchDevice = std::function<BenchDevice(Transport& transport, const Cluster& cluster)>;

/// The rates of the slowest rank's device.
struct DeviceRates {
  double copy_bytes_per_s = 0;
  double product_flop_per_s = 0;  // of one large product in bf16 with f32 sums
};

/// Of one variant, the same on every rank.
struct DeviceVariantResult {
  std::int32_t num_chunks = 1;
  std::vector<double> seconds;   // [num_rounds], until the slowest rank's device was done
  Matrix<double> phase_seconds;  // [ep_size, kNumPhases], medians, with a wait after each step
  std::int64_t max_rows = 0;     // that a rank computes, of the busiest
  double busiest_flop = 0;       // of that rank
  // The least that a rank reads and writes: each expert with rows once, its tokens and their sums.
  double least_bytes = 0;
  // What the kernels of start_dispatch and finish_combine read and write, of the rank with most.
  double gather_bytes = 0, returns_bytes = 0;
  double bound_s = 0;  // the larger of busiest_flop and least_bytes, each at the measured rate
};

struct DeviceBenchResult {
  std::string device, network;
  DeviceRates rates;
  double routing_s = 0;      // of the slowest rank, the median of the rounds: softmax and top-k
  double routing_bytes = 0;  // what it reads and writes
  double routes_s = 0;       // the same: who gets which row, with a wait for the counts
  std::vector<DeviceVariantResult> variants;
};

struct DeviceBenchOptions {
  std::int32_t num_rounds = 5;
  std::int64_t product_size = 8192;  // of the product by which the rate is measured
};

/// Collective.
/// @param batch of this rank
/// @param problem has experts; its placements have no replicas
/// @param progress counts the runs of this rank
/// @throws Error(kTransport) if a variant computes something wrong, or the device fails;
///         as DeviceExperts and Exchange::wait()
DeviceBenchResult bench_device_layer(Transport& transport, const DeviceBenchOptions& options,
                                     const LayerProblem& problem, const LayerBatch& batch,
                                     const MakeBenchDevice& make_device, Progress& progress);

}  // namespace c2r
