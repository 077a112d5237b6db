// Runs the MPI transport in a program that has MPI of its own, on a part of its ranks.
#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/mpi/mpi_transport.h"
#include "c2r/transport/mpi/run_mpi.h"

namespace c2r {
namespace {

int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

// Ranks 1 to 3 of the world in reverse order: rank 3 is the group's rank 0.
TEST(MpiTransport, RunsOnASubCommunicatorBesideTheProgramsOwnTraffic) {
  int world_size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  ASSERT_EQ(world_size, 4);
  const int me = world_rank();
  MPI_Comm group = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, me == 0 ? MPI_UNDEFINED : 1, -me, &group);
  // The program's own messages are under way before, during and after.
  int own_sent = 100 + me, own_received = -1;
  MPI_Request requests[2];
  MPI_Irecv(&own_received, 1, MPI_INT, (me + 3) % 4, 0, MPI_COMM_WORLD, &requests[0]);
  if (me != 0) {
    const auto transport = make_mpi_transport(group, std::chrono::seconds(60));
    EXPECT_EQ(transport->ep_size(), 3);
    EXPECT_EQ(transport->rank(), RankId{3 - me});
    const std::int64_t mine = 7 * me;
    const auto all = all_gather<std::int64_t>(*transport, {&mine, 1}, "values");
    const std::vector<std::int64_t> expected{21, 14, 7};
    EXPECT_TRUE(std::ranges::equal(all.all(), expected));
    const auto another = make_mpi_transport(group, std::chrono::seconds(60));
    barrier(*another, "end");
    MPI_Comm_free(&group);
    barrier(*transport, "end, after the program has freed its communicator");
  }
  MPI_Isend(&own_sent, 1, MPI_INT, (me + 1) % 4, 0, MPI_COMM_WORLD, &requests[1]);
  MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
  EXPECT_EQ(own_received, 100 + (me + 3) % 4);
}

TEST(MpiTransport, RefusesNoCommunicatorAndNoTime) {
  EXPECT_EQ(
      testing::error_of([] { (void)make_mpi_transport(MPI_COMM_NULL, std::chrono::seconds(1)); }),
      "the communicator is MPI_COMM_NULL: this process is none of its ranks");
  EXPECT_EQ(
      testing::error_of([] { (void)make_mpi_transport(MPI_COMM_WORLD, std::chrono::seconds(0)); }),
      "the timeout is 0 ms, but must be positive");
}

TEST(RunMpi, LeavesMpiAloneThatItHasNotStarted) {
  for (int run = 0; run < 2; ++run) {
    int num_bodies = 0;
    run_mpi(
        [&](Transport& transport) {
          std::vector<std::int64_t> ranks{1};
          all_reduce(transport, ranks, Reduction::kSum, "ranks");
          EXPECT_EQ(ranks[0], 4);
          ++num_bodies;
        },
        std::chrono::seconds(60),
        [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
    EXPECT_EQ(num_bodies, 1);
    int is_finalized = 1;
    MPI_Finalized(&is_finalized);
    EXPECT_EQ(is_finalized, 0);
  }
}

}  // namespace
}  // namespace c2r

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const std::string before = c2r::testing::error_of(
      [] { (void)c2r::make_mpi_transport(MPI_COMM_WORLD, std::chrono::seconds(1)); });
  const bool refused =
      before == "MPI is not initialized; call MPI_Init_thread() before a transport is made";
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int failed = !refused || RUN_ALL_TESTS() != 0, anywhere = 0;
  MPI_Allreduce(&failed, &anywhere, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return anywhere;
}
