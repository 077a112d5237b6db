// Puts together what a rank's part of a layer runs on, on an NVIDIA GPU.
#include "c2r/bench/cuda/cuda_bench_device.h"

#include <algorithm>

#include "c2r/core/cuda/cuda_stream.h"
#include "c2r/core/error.h"
#include "c2r/dispatch/cuda/cuda_route_launcher.h"
#include "c2r/dispatch/cuda/cuda_row_launcher.h"
#include "c2r/experts/cublas/cublas_products.h"
#include "c2r/experts/cuda/cuda_expert_launcher.h"
#include "c2r/routing/cuda/cuda_select_launcher.h"
#include "c2r/transport/device/staged_network.h"
#ifdef C2R_HAVE_NCCL
#include "c2r/transport/nccl/nccl_calls.h"
#endif

namespace c2r {

BenchDevice make_cuda_bench_device(Transport& transport, [[maybe_unused]] const Cluster& cluster) {
  const int num_devices = num_cuda_devices();
  C2R_REQUIRE(num_devices > 0, kUnsupported, "there is no NVIDIA GPU that this process can use");
  const auto device = static_cast<int>(index(transport.rank())) % num_devices;
  BenchDevice on{.name = cuda_device_name(device), .network_name = "staged"};
  on.compute = make_cuda_stream(device);
  on.travel = make_cuda_stream(device);
  on.copy_bytes_per_s = measure_cuda_copy(*on.compute);
#ifdef C2R_HAVE_NCCL
  if (cluster.ranks_per_node <= num_devices && cluster.ep_size() > 1) {
    on.network_name = "nccl";
    on.calls = make_nccl_calls(transport);
    on.network = std::make_unique<StreamNetwork>(*on.calls, *on.compute, *on.travel);
  }
#endif
  if (on.network == nullptr) {
    on.network = std::make_unique<StagedNetwork>(transport, *on.compute, *on.travel);
  }
  on.row_launcher = make_cuda_row_launcher();
  on.route_launcher = make_cuda_route_launcher();
  on.select_launcher = make_cuda_select_launcher();
  on.expert_launcher = make_cuda_expert_launcher();
  on.products = make_cublas_products();
  return on;
}

}  // namespace c2r
