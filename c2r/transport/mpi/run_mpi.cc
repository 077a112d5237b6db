// Runs a body as a rank of MPI_COMM_WORLD: starts MPI unless it runs, and ends all ranks if one
// fails.
#include "c2r/transport/mpi/run_mpi.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/mpi/endpoint_internal.h"
#include "c2r/transport/mpi/mpi_transport.h"

namespace c2r {
namespace {

// Starting processes on busy machines takes longer than an exchange between those that run.
constexpr std::chrono::milliseconds kLeastStartTimeout = std::chrono::seconds(10);

static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets one");
std::atomic<bool> is_interrupted = false;  // signals are the process's, so this is, too

// Turns SIGINT and SIGTERM, however often they come, into is_interrupted.
class CatchSignals {
 public:
  CatchSignals() {
    struct sigaction action = {};
    action.sa_handler = [](int) { is_interrupted = true; };
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, &previous_int_);
    sigaction(SIGTERM, &action, &previous_term_);
  }
  CatchSignals(const CatchSignals&) = delete;
  CatchSignals& operator=(const CatchSignals&) = delete;
  ~CatchSignals() {
    sigaction(SIGINT, &previous_int_, nullptr);
    sigaction(SIGTERM, &previous_term_, nullptr);
  }

 private:
  struct sigaction previous_int_ = {}, previous_term_ = {};
};

using Report = std::function<void(const std::string& line)>;

// Ends this process if MPI_Init_thread() has not returned when the time is over. It waits for all
// ranks without a limit and cannot be interrupted, so nothing else can end the wait for a rank that
// has stopped.
class StartWatchdog {
 public:
  StartWatchdog(std::chrono::milliseconds timeout, const Report& report)
      : thread_([this, timeout, report] {
          std::unique_lock lock(mutex_);
          if (started_.wait_for(lock, timeout, [this] { return is_started_; })) return;
          report(
              fmt::format("MPI has not started within {} ms: a rank has stopped, or its machine "
                          "cannot be reached",
                          timeout.count()));
          _exit(1);
        }) {}
  StartWatchdog(const StartWatchdog&) = delete;
  StartWatchdog& operator=(const StartWatchdog&) = delete;
  ~StartWatchdog() {
    {
      const std::lock_guard lock(mutex_);
      is_started_ = true;
    }
    started_.notify_one();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable started_;
  bool is_started_ = false;
  std::thread thread_;
};

// Initializes MPI unless the program has. @returns whether it did
bool initialize(std::chrono::milliseconds timeout, const Report& report) {
  int is_initialized = 0, provided = 0;
  MPI_Initialized(&is_initialized);
  if (is_initialized != 0) {
    MPI_Query_thread(&provided);
  } else {
    const StartWatchdog watchdog(std::max(timeout, kLeastStartTimeout), report);
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  }
  C2R_REQUIRE(provided >= MPI_THREAD_FUNNELED, kUnsupported,
              "this MPI does not allow a rank to have threads of its own{}",
              is_initialized == 0 ? "" : "; ask MPI_Init_thread() for MPI_THREAD_FUNNELED");
  return is_initialized == 0;
}

// MPI_Finalize waits for all ranks without a limit; SIGALRM ends this process if it takes too long.
void finalize(std::chrono::milliseconds timeout) {
  alarm(unsigned(std::chrono::ceil<std::chrono::seconds>(timeout).count()));
  MPI_Finalize();
  alarm(0);
}

}  // namespace

void run_mpi(const std::function<void(Transport&)>& body, std::chrono::milliseconds timeout,
             const std::function<void(const std::string& line)>& report) {
  C2R_REQUIRE(timeout.count() > 0, kInvalidArgument, "the timeout is {} ms, but must be positive",
              timeout.count());
  const bool is_own_mpi = initialize(timeout, report);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const auto fail = [&](const std::string& what) {
    report(fmt::format("rank {}: {}", rank, what));
    // MPICH's mpirun drops the output that it has not read when a rank aborts.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    MPI_Abort(MPI_COMM_WORLD, 1);
  };
  const CatchSignals signals;
  try {
    const auto transport = make_mpi_transport(MPI_COMM_WORLD, timeout, is_interrupted);
    body(*transport);
    barrier(*transport, "end of the run");
  } catch (const std::exception& e) {
    fail(e.what());
  } catch (...) {
    fail("an exception of an unknown type");
  }
  if (is_own_mpi) finalize(timeout);
}

}  // namespace c2r
