// The transport over MPI: each part is a few messages, and each exchange a list of MPI requests.
//
// A part travels in pieces of at most kMaxMessageBytes, under a tag that is a hash of
// its label and size. So a part that is not the expected one is not received, but for one in 32,768
// whose hash of 15 bits is the same: Open MPI 4.1 writes beyond the end of a buffer that is too
// short for a message from shared memory. It is found when the wait for the expected one has taken
// too long.
#include "c2r/transport/mpi/mpi_transport.h"

#include <mpi.h>

#include <algorithm>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/transport/mpi/endpoint_internal.h"
#include "c2r/transport/waiting_internal.h"

namespace c2r {
namespace {

constexpr std::int64_t kMaxMessageBytes = std::int64_t{8} << 20;

void check(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  C2R_THROW(kTransport, "{}: {}", call, std::string_view(text, std::size_t(length)));
}

// FNV-1a, cut to the smallest range of tags that MPI guarantees.
int tag_of(const std::string& label, std::size_t num_bytes) {
  std::uint32_t hash = 2166136261;
  const auto add = [&](std::size_t byte) { hash = (hash ^ std::uint8_t(byte)) * 16777619; };
  for (const char letter : label) add(std::size_t(letter));
  for (std::size_t shift = 0; shift < 64; shift += 8) add(num_bytes >> shift);
  return int(hash >> 17);  // at most 32767
}

// Lets other processes have the processor, after a millisecond for longer: ranks may share it.
class Backoff {
 public:
  void pause() {
    constexpr auto kSpin = std::chrono::milliseconds(1);
    constexpr auto kSleep = std::chrono::microseconds(50);
    if (StandstillTimer::Clock::now() - since_ < kSpin) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kSleep);
    }
  }
  void reset() { since_ = StandstillTimer::Clock::now(); }

 private:
  StandstillTimer::Clock::time_point since_ = StandstillTimer::Clock::now();
};

// What the exchanges of a transport share.
struct Endpoint {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, ep_size = 0;
  std::chrono::milliseconds timeout;
  const std::atomic<bool>& interrupted;
  std::string failure = {};  // why nothing can be started any more; empty while it can
};

class MpiExchange final : public Exchange {
 public:
  MpiExchange(Endpoint& endpoint, std::string label)
      : endpoint_(endpoint), label_(std::move(label)) {}
  ~MpiExchange() override;

  void post(std::span<const Outgoing> send, std::span<const Incoming> recv);
  bool done() override;
  void wait() override;

 private:
  void post_recvs(std::span<const Incoming> recv);
  void post_sends(std::span<const Outgoing> send);
  [[noreturn]] void fail(const Error& error);
  MPI_Request& add(RankId peer, Direction direction, std::int64_t num_bytes);
  std::vector<OpenPart> open_parts() const;
  bool test();
  std::string unexpected() const;
  void check_interrupted() const;

  Endpoint& endpoint_;
  const std::string label_;
  std::vector<MPI_Request> requests_;  // MPI_REQUEST_NULL when completed
  std::vector<OpenPart> pieces_;       // [requests_.size()]
  std::vector<int> completed_;         // [requests_.size()], scratch of test()
  std::vector<MPI_Status> statuses_;   // [requests_.size()], scratch of test()
  std::size_t num_open_ = 0;
  bool was_seen_done_ = false;
};

// Calls `post(piece)` for each piece of `bytes`; never, if there are none.
template <class T, class Post>
void for_each_piece(std::span<T> bytes, const Post& post) {
  while (!bytes.empty()) {
    const auto size = std::min(bytes.size(), std::size_t(kMaxMessageBytes));
    post(bytes.first(size));
    bytes = bytes.subspan(size);
  }
}

// The places of `parts` in the order of the distance to their rank, so that not all ranks begin
// with rank 0. Parts of one rank keep their order.
template <class Parts, class Distance>
std::vector<std::size_t> rotated(const Parts& parts, const Distance& distance) {
  std::vector<std::size_t> order(parts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t idx) { return distance(parts[idx]); });
  return order;
}

MPI_Request& MpiExchange::add(RankId peer, Direction direction, std::int64_t num_bytes) {
  pieces_.push_back({peer, direction, num_bytes});
  ++num_open_;
  return requests_.emplace_back(MPI_REQUEST_NULL);
}

void MpiExchange::post_recvs(std::span<const Incoming> recv) {
  const int n = endpoint_.ep_size;
  const auto distance = [&](const Incoming& part) {
    return (endpoint_.rank - int(part.src) + n) % n;
  };
  for (const std::size_t idx : rotated(recv, distance)) {
    const auto& [src, bytes] = recv[idx];
    if (src == RankId{endpoint_.rank}) continue;
    const int tag = tag_of(label_, bytes.size());
    for_each_piece(bytes, [&, peer = src](std::span<std::byte> piece) {
      MPI_Request& request = add(peer, Direction::kIn, std::ssize(piece));
      check(MPI_Irecv(piece.data(), int(piece.size()), MPI_BYTE, int(peer), tag, endpoint_.comm,
                      &request),
            "MPI_Irecv");
    });
  }
}

void MpiExchange::post_sends(std::span<const Outgoing> send) {
  const int n = endpoint_.ep_size;
  const auto distance = [&](const Outgoing& part) {
    return (int(part.dst) - endpoint_.rank + n) % n;
  };
  for (const std::size_t idx : rotated(send, distance)) {
    const auto& [dst, bytes] = send[idx];
    if (dst == RankId{endpoint_.rank}) continue;
    const int tag = tag_of(label_, bytes.size());
    for_each_piece(bytes, [&, peer = dst](std::span<const std::byte> piece) {
      MPI_Request& request = add(peer, Direction::kOut, std::ssize(piece));
      check(MPI_Isend(piece.data(), int(piece.size()), MPI_BYTE, int(peer), tag, endpoint_.comm,
                      &request),
            "MPI_Isend");
    });
  }
}

MpiExchange::~MpiExchange() {
  if (!was_seen_done_ && endpoint_.failure.empty()) endpoint_.failure = label_ + " was given up";
  for (std::size_t idx = 0; idx < requests_.size(); ++idx) {
    if (requests_[idx] == MPI_REQUEST_NULL) continue;
    // What was matched already can be neither cancelled nor waited for, as its peer may be dead.
    if (pieces_[idx].direction == Direction::kIn) MPI_Cancel(&requests_[idx]);
    MPI_Request_free(&requests_[idx]);
  }
}

std::vector<OpenPart> MpiExchange::open_parts() const {
  std::vector<OpenPart> open;
  for (std::size_t idx = 0; idx < requests_.size(); ++idx) {
    if (requests_[idx] != MPI_REQUEST_NULL) open.push_back(pieces_[idx]);
  }
  return open;
}

// Moves what can be moved; true when nothing is left.
bool MpiExchange::test() {
  if (num_open_ == 0) return true;
  completed_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int num_completed = 0;
  const int result = MPI_Testsome(int(requests_.size()), requests_.data(), &num_completed,
                                  completed_.data(), statuses_.data());
  if (result != MPI_ERR_IN_STATUS) check(result, "MPI_Testsome");
  for (int i = 0; i < num_completed; ++i) {
    if (result == MPI_SUCCESS) break;  // then MPI leaves MPI_ERROR undefined
    const OpenPart& piece = pieces_[std::size_t(completed_[std::size_t(i)])];
    check(statuses_[std::size_t(i)].MPI_ERROR,
          piece.direction == Direction::kIn ? "MPI_Irecv" : "MPI_Isend");
  }
  num_open_ -= std::size_t(num_completed);
  return num_open_ == 0;
}

// What has come from the ranks that this waits for and was not received, for a message.
std::string MpiExchange::unexpected() const {
  std::string text;
  for (std::int32_t src = 0; src < endpoint_.ep_size; ++src) {
    const auto is_awaited = [&](const OpenPart& part) {
      return part.peer == RankId{src} && part.direction == Direction::kIn;
    };
    if (std::ranges::none_of(open_parts(), is_awaited)) continue;
    int has_come = 0, num_bytes = 0;
    MPI_Status status;
    check(MPI_Iprobe(src, MPI_ANY_TAG, endpoint_.comm, &has_come, &status), "MPI_Iprobe");
    if (has_come == 0) continue;
    check(MPI_Get_count(&status, MPI_BYTE, &num_bytes), "MPI_Get_count");
    text += fmt::format("; rank {} sent {} bytes of something else", src, num_bytes);
  }
  return text;
}

void MpiExchange::check_interrupted() const {
  if (!endpoint_.interrupted) return;
  C2R_THROW(kTransport, "interrupted while waiting for {}", describe(open_parts()));
}

void MpiExchange::fail(const Error& error) {
  endpoint_.failure = fmt::format("{}: {}", label_, error.what());
  throw Error(error.code(), endpoint_.failure);
}

void MpiExchange::post(std::span<const Outgoing> send, std::span<const Incoming> recv) {
  try {
    post_recvs(recv);  // first, so that what arrives has a place
    post_sends(send);
    // Not by MPI: Open MPI 4.1 cuts a small message to itself without an error.
    copy_own_parts(send, recv, RankId{endpoint_.rank});
  } catch (const Error& e) {
    fail(e);
  }
}

bool MpiExchange::done() {
  try {
    if (test()) return was_seen_done_ = true;
    check_interrupted();
    return false;
  } catch (const Error& e) {
    fail(e);
  }
}

void MpiExchange::wait() {
  StandstillTimer timer(endpoint_.timeout);
  Backoff backoff;
  for (std::size_t num_open = num_open_; !done();) {
    if (num_open_ != num_open) {
      num_open = num_open_;
      timer.moved();
      backoff.reset();
    }
    if (timer.is_over()) {
      endpoint_.failure = label_ + " was late";
      C2R_THROW(kTimeout, "{}{}", timer.message(label_, open_parts()), unexpected());
    }
    backoff.pause();
  }
}

class MpiTransport final : public Transport {
 public:
  MpiTransport(MPI_Comm comm, std::chrono::milliseconds timeout,
               const std::atomic<bool>& interrupted)
      : endpoint_{.timeout = timeout, .interrupted = interrupted} {
    duplicate(comm);
    // MPI_Testsome, which has no communicator, takes the handler of one of the first two.
    for (MPI_Comm handled : {MPI_COMM_WORLD, MPI_COMM_SELF, endpoint_.comm}) {
      check(MPI_Comm_set_errhandler(handled, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    }
    check(MPI_Comm_rank(endpoint_.comm, &endpoint_.rank), "MPI_Comm_rank");
    check(MPI_Comm_size(endpoint_.comm, &endpoint_.ep_size), "MPI_Comm_size");
    sent_.num_messages.resize(std::size_t(endpoint_.ep_size));
    sent_.num_bytes.resize(std::size_t(endpoint_.ep_size));
  }
  // The communicator is left to the end of the process: freeing it may wait for a peer that is
  // dead.

  RankId rank() const override { return RankId{endpoint_.rank}; }
  std::int32_t ep_size() const override { return endpoint_.ep_size; }
  const Traffic& sent() const override { return sent_; }

  std::unique_ptr<Exchange> start(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                  std::string label) override {
    check_ranks(send, recv, endpoint_.ep_size, label);
    C2R_REQUIRE(endpoint_.failure.empty(), kTransport, "{}: cannot start after a failure: {}",
                label, endpoint_.failure);
    C2R_REQUIRE(!endpoint_.interrupted, kTransport, "{}: interrupted", label);
    count_traffic(send, rank(), sent_);
    auto exchange = std::make_unique<MpiExchange>(endpoint_, std::move(label));
    exchange->post(send, recv);
    return exchange;
  }

 private:
  void duplicate(MPI_Comm comm) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Comm_idup(comm, &endpoint_.comm, &request), "MPI_Comm_idup");
    const StandstillTimer timer(endpoint_.timeout);
    Backoff backoff;
    for (int is_done = 0;;) {
      check(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), "MPI_Test");
      if (is_done != 0) return;
      C2R_REQUIRE(!endpoint_.interrupted, kTransport, "start of the run: interrupted");
      C2R_REQUIRE(!timer.is_over(), kTimeout, "start of the run: not all ranks came within {} ms",
                  endpoint_.timeout.count());
      backoff.pause();
    }
  }

  Endpoint endpoint_;
  Traffic sent_;
};

const std::atomic<bool> kNeverInterrupted = false;

void check_mpi_runs(MPI_Comm comm) {
  int is_initialized = 0, is_finalized = 0;
  MPI_Initialized(&is_initialized);
  MPI_Finalized(&is_finalized);
  C2R_REQUIRE(is_initialized != 0 && is_finalized == 0, kInvalidArgument,
              "MPI {}; call MPI_Init_thread() before a transport is made",
              is_finalized != 0 ? "has been finalized" : "is not initialized");
  C2R_REQUIRE(comm != MPI_COMM_NULL, kInvalidArgument,
              "the communicator is MPI_COMM_NULL: this process is none of its ranks");
}

}  // namespace

std::unique_ptr<Transport> make_mpi_transport(MPI_Comm comm, std::chrono::milliseconds timeout,
                                              const std::atomic<bool>& interrupted) {
  C2R_REQUIRE(timeout.count() > 0, kInvalidArgument, "the timeout is {} ms, but must be positive",
              timeout.count());
  check_mpi_runs(comm);
  return std::make_unique<MpiTransport>(comm, timeout, interrupted);
}

std::unique_ptr<Transport> make_mpi_transport(MPI_Comm comm, std::chrono::milliseconds timeout) {
  return make_mpi_transport(comm, timeout, kNeverInterrupted);
}

}  // namespace c2r
