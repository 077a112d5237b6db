// Routes that an NVIDIA GPU makes are those of the host's row plans, in every mode.
#include <gtest/gtest.h>

#include "c2r/dispatch/cuda/cuda_route_launcher.h"
#include "c2r/dispatch/cuda/device_routes_testing.h"
#include "c2r/transport/in_process.h"
#include "tests/gpu/on_gpu.h"

namespace c2r {
namespace {

TEST_F(OnGpu, MakesTheRoutesOfTheHost) {
  const auto launcher = make_cuda_route_launcher();
  for (const Cluster& cluster : {Cluster{1, 1}, Cluster{1, 3}, Cluster{2, 2}}) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      for (std::uint64_t seed = 0; seed < 4; ++seed) {
        SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
        const testing::ExchangeProblem problem = seed == 0
                                                     ? testing::hot_expert_problem(options, seed)
                                                     : testing::random_route_problem(options, seed);
        run_in_process(cluster.ep_size(), [&](Transport& transport) {
          const auto stream = make_cuda_stream(0);
          EXPECT_EQ(testing::make_routes_on_device(problem, transport.rank(), *stream, *launcher),
                    testing::make_routes_on_host(problem, transport));
        });
      }
    }
  }
}

}  // namespace
}  // namespace c2r
