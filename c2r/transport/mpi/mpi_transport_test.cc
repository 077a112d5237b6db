// The conformance suite, run by every rank that mpirun starts.
#include <mpi.h>

#include "c2r/transport/conformance.h"
#include "c2r/transport/mpi/endpoint_internal.h"

namespace c2r {
namespace {

const std::atomic<bool> kNeverInterrupted = false;

INSTANTIATE_TEST_SUITE_P(Mpi, TransportConformance,
                         ::testing::Values(TransportCase{
                             "mpirun", 1,
                             [](std::chrono::milliseconds timeout, const auto& body) {
                               MPI_Barrier(MPI_COMM_WORLD);  // the last test may have failed
                               body(*make_mpi_transport(timeout, kNeverInterrupted));
                             }}),
                         [](const auto& test) { return test.param.name; });

TEST(MpiTransport, ThrowsWhenInterruptedWhileItWaits) {
  std::atomic<bool> interrupted = false;
  const auto transport = make_mpi_transport(std::chrono::seconds(60), interrupted);
  if (transport->ep_size() == 1) GTEST_SKIP() << "has nobody to wait for";
  const auto peer = (index(transport->rank()) + 1) % std::size_t(transport->ep_size());
  Bytes received(8);
  const std::vector<Incoming> recv{{RankId{std::int32_t(peer)}, received}};
  const auto exchange = transport->start({}, recv, "layer 2 combine");
  EXPECT_FALSE(exchange->done());
  interrupted = true;
  try {
    exchange->wait();
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.what(), fmt::format("layer 2 combine: interrupted while waiting for rank {} (8 "
                                    "bytes from it)",
                                    peer));
  }
}

}  // namespace
}  // namespace c2r

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  ::testing::InitGoogleTest(&argc, argv);
  int failed = RUN_ALL_TESTS(), anywhere = 0;
  MPI_Allreduce(&failed, &anywhere, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return anywhere;
}
