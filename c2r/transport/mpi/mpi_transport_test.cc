// The conformance suite, run by every rank that mpirun starts.
#include <mpi.h>

#include "c2r/core/testing.h"
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
                               body(
                                   *make_mpi_transport(MPI_COMM_WORLD, timeout, kNeverInterrupted));
                             }}),
                         [](const auto& test) { return test.param.name; });

TEST(MpiTransport, ThrowsWhenInterruptedWhileItWaits) {
  std::atomic<bool> interrupted = false;
  const auto transport = make_mpi_transport(MPI_COMM_WORLD, std::chrono::seconds(60), interrupted);
  ASSERT_GT(transport->ep_size(), 1) << "there is nobody to wait for";
  const auto peer = (index(transport->rank()) + 1) % std::size_t(transport->ep_size());
  Bytes received(8);
  const std::vector<Incoming> recv{{RankId{std::int32_t(peer)}, received}};
  const auto exchange = transport->start({}, recv, "layer 2 combine");
  EXPECT_FALSE(exchange->done());
  interrupted = true;
  EXPECT_EQ(testing::error_of([&] { exchange->wait(); }),
            fmt::format("layer 2 combine: interrupted while waiting for rank {} (8 bytes from it)",
                        peer));
}

TEST(MpiTransport, TellsWhatCameInsteadOfWhatWasExpected) {
  MPI_Barrier(MPI_COMM_WORLD);
  const auto transport =
      make_mpi_transport(MPI_COMM_WORLD, std::chrono::milliseconds(300), kNeverInterrupted);
  const Bytes sent(100'000);
  Bytes received(70'000);
  const std::vector<Outgoing> send{{RankId{1}, sent}};
  const std::vector<Incoming> recv{{RankId{0}, received}};
  std::unique_ptr<Exchange> exchange;
  if (transport->rank() == RankId{0}) {
    exchange = transport->start(send, {}, "layer 3 dispatch");
  }
  if (transport->rank() == RankId{1}) {
    exchange = transport->start({}, recv, "layer 3 dispatch");
    EXPECT_EQ(testing::error_of([&] { exchange->wait(); }),
              "layer 3 dispatch: nothing moved for 300 ms while waiting for rank 0 (70000 bytes "
              "from it); rank 0 sent 100000 bytes of something else");
  }
  MPI_Barrier(MPI_COMM_WORLD);
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
