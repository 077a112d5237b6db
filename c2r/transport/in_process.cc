// Ranks as threads: both ends post their parts in a channel, and whoever posts last copies the
// bytes.
#include "c2r/transport/in_process.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/transport/waiting_internal.h"

namespace c2r {
namespace {

class InProcessExchange;

// Wakes a rank that waits. Its mutex guards the progress of all exchanges of that rank.
struct Monitor {
  std::mutex mutex;
  std::condition_variable changed;
  std::string failure;  // of another rank; empty as long as no rank has failed
};

// A part in a channel. `idx` is its position in the list of its exchange.
struct SendPost {
  InProcessExchange* owner;
  std::size_t idx;
  std::span<const std::byte> bytes;
};
struct RecvPost {
  InProcessExchange* owner;
  std::size_t idx;
  std::span<std::byte> bytes;
};

// What one rank has started to send to another and has not been received, or the other way round:
// one of the two lists is empty whenever the mutex is free. Lock a channel before a monitor.
struct Channel {
  std::mutex mutex;
  std::vector<SendPost> sends;
  std::vector<RecvPost> recvs;
};

class Group {
 public:
  Group(std::int32_t num_ranks, std::chrono::milliseconds limit)
      : ep_size(num_ranks),
        timeout(limit),
        monitors_(std::size_t(num_ranks)),
        channels_(monitors_.size() * monitors_.size()) {}

  const std::int32_t ep_size;
  const std::chrono::milliseconds timeout;

  Monitor& monitor(RankId rank) { return monitors_[index(rank)]; }
  Channel& channel(RankId src, RankId dst) {
    return channels_[index(src) * monitors_.size() + index(dst)];
  }

  // Records that rank `rank` ended with `failure`, which `what` describes. Only the first is kept.
  void fail(RankId rank, std::exception_ptr failure, const std::string& what) {
    {
      const std::lock_guard lock(mutex_);
      if (first_failure_) return;
      first_failure_ = std::move(failure);
    }
    for (Monitor& monitor : monitors_) {
      const std::lock_guard lock(monitor.mutex);
      monitor.failure = fmt::format("rank {} failed: {}", index(rank), what);
      monitor.changed.notify_all();
    }
  }
  void rethrow_first_failure() const {
    if (first_failure_) std::rethrow_exception(first_failure_);
  }

 private:
  std::vector<Monitor> monitors_;
  std::vector<Channel> channels_;  // [ep_size, ep_size]
  std::mutex mutex_;
  std::exception_ptr first_failure_;
};

class InProcessExchange final : public Exchange {
 public:
  InProcessExchange(Group& group, RankId rank, std::string label, std::string& transport_failure)
      : group_(group), rank_(rank), label_(std::move(label)), failure_(transport_failure) {}
  ~InProcessExchange() override;

  void post(std::span<const Outgoing> send, std::span<const Incoming> recv);
  bool done() override;
  void wait() override;

 private:
  // Both need the monitor's mutex.
  std::vector<OpenPart> open_parts() const;
  bool is_done();  // throws if a part has failed

  // Copies the parts that both ranks of a channel have started. The caller holds its mutex.
  static void match(Channel& channel);
  void finish(std::size_t idx, std::string mismatch);
  [[noreturn]] void fail(const std::string& what);

  Group& group_;
  const RankId rank_;
  const std::string label_;
  std::string& failure_;  // of the transport
  bool was_seen_done_ = false;

  // Guarded by the monitor of `rank_`.
  std::vector<OpenPart> parts_;
  std::vector<bool> is_open_;  // [parts_.size()]
  std::size_t num_open_ = 0;
  StandstillTimer::Clock::time_point last_move_;
  std::string mismatch_;
};

void InProcessExchange::post(std::span<const Outgoing> send, std::span<const Incoming> recv) {
  try {
    copy_own_parts(send, recv, rank_);
  } catch (const Error& e) {
    fail(e.what());
  }
  for (const auto& [src, bytes] : recv) {
    parts_.push_back({src, Direction::kIn, std::ssize(bytes)});
  }
  for (const auto& [dst, bytes] : send) {
    parts_.push_back({dst, Direction::kOut, std::ssize(bytes)});
  }
  for (const OpenPart& part : parts_) {
    is_open_.push_back(part.num_bytes > 0 && part.peer != rank_);
  }
  num_open_ = std::size_t(std::ranges::count(is_open_, true));

  // Once the first part is in a channel, other threads may change is_open_.
  const std::vector<bool> is_on_the_wire = is_open_;
  for (std::size_t idx = 0; idx < recv.size(); ++idx) {
    if (!is_on_the_wire[idx]) continue;
    Channel& channel = group_.channel(recv[idx].src, rank_);
    const std::lock_guard lock(channel.mutex);
    channel.recvs.push_back({this, idx, recv[idx].bytes});
    match(channel);
  }
  for (std::size_t idx = 0; idx < send.size(); ++idx) {
    if (!is_on_the_wire[recv.size() + idx]) continue;
    Channel& channel = group_.channel(rank_, send[idx].dst);
    const std::lock_guard lock(channel.mutex);
    channel.sends.push_back({this, recv.size() + idx, send[idx].bytes});
    match(channel);
  }
}

void InProcessExchange::match(Channel& channel) {
  while (!channel.sends.empty() && !channel.recvs.empty()) {
    const SendPost from = channel.sends.front();
    const RecvPost to = channel.recvs.front();
    channel.sends.erase(channel.sends.begin());
    channel.recvs.erase(channel.recvs.begin());

    std::string mismatch;
    if (from.owner->label_ != to.owner->label_) {
      mismatch = fmt::format("rank {} sent something else: {}", index(from.owner->rank_),
                             from.owner->label_);
    } else if (from.bytes.size() != to.bytes.size()) {
      mismatch = fmt::format("rank {} sent {} bytes where {} were expected",
                             index(from.owner->rank_), from.bytes.size(), to.bytes.size());
    } else {
      std::memcpy(to.bytes.data(), from.bytes.data(), to.bytes.size());
    }
    from.owner->finish(from.idx, {});
    to.owner->finish(to.idx, std::move(mismatch));
  }
}

void InProcessExchange::finish(std::size_t idx, std::string mismatch) {
  Monitor& monitor = group_.monitor(rank_);
  const std::lock_guard lock(monitor.mutex);
  is_open_[idx] = false;
  --num_open_;
  last_move_ = StandstillTimer::Clock::now();
  if (mismatch_.empty()) mismatch_ = std::move(mismatch);
  // Only the last part notifies: a rank that waits for 64 parts would wake 64 times otherwise.
  if (num_open_ == 0 || !mismatch_.empty()) monitor.changed.notify_all();
  // As soon as the mutex is free, the owner may destroy this exchange.
}

InProcessExchange::~InProcessExchange() {
  std::vector<OpenPart> open;
  {
    const std::lock_guard lock(group_.monitor(rank_).mutex);
    open = open_parts();
  }
  if (!was_seen_done_ && failure_.empty()) failure_ = label_ + " was given up";
  for (const OpenPart& part : open) {
    const bool in = part.direction == Direction::kIn;
    Channel& channel = in ? group_.channel(part.peer, rank_) : group_.channel(rank_, part.peer);
    const std::lock_guard lock(channel.mutex);
    std::erase_if(channel.sends, [&](const SendPost& post) { return post.owner == this; });
    std::erase_if(channel.recvs, [&](const RecvPost& post) { return post.owner == this; });
  }
}

std::vector<OpenPart> InProcessExchange::open_parts() const {
  std::vector<OpenPart> open;
  for (std::size_t idx = 0; idx < parts_.size(); ++idx) {
    if (is_open_[idx]) open.push_back(parts_[idx]);
  }
  return open;
}

bool InProcessExchange::is_done() {
  const std::string& peer_failure = group_.monitor(rank_).failure;
  if (mismatch_.empty() && (num_open_ == 0 || peer_failure.empty())) {
    return was_seen_done_ = num_open_ == 0;
  }
  fail(mismatch_.empty() ? peer_failure : mismatch_);
}

void InProcessExchange::fail(const std::string& what) {
  failure_ = fmt::format("{}: {}", label_, what);
  throw Error(ErrorCode::kTransport, failure_);
}

bool InProcessExchange::done() {
  const std::lock_guard lock(group_.monitor(rank_).mutex);
  return is_done();
}

void InProcessExchange::wait() {
  Monitor& monitor = group_.monitor(rank_);
  std::unique_lock lock(monitor.mutex);
  StandstillTimer timer(group_.timeout);
  while (!is_done()) {
    timer.moved(last_move_);
    if (timer.is_over()) {
      failure_ = label_ + " was late";
      throw Error(ErrorCode::kTimeout, timer.message(label_, open_parts()));
    }
    monitor.changed.wait_until(lock, timer.deadline());
  }
}

class InProcessTransport final : public Transport {
 public:
  InProcessTransport(Group& group, RankId rank) : group_(group), rank_(rank) {
    sent_.num_messages.resize(std::size_t(group.ep_size));
    sent_.num_bytes.resize(std::size_t(group.ep_size));
  }

  RankId rank() const override { return rank_; }
  std::int32_t ep_size() const override { return group_.ep_size; }

  std::unique_ptr<Exchange> start(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                  std::string label) override {
    check_ranks(send, recv, group_.ep_size, label);
    C2R_REQUIRE(failure_.empty(), kTransport, "{}: cannot start after a failure: {}", label,
                failure_);
    count_traffic(send, rank_, sent_);
    auto exchange = std::make_unique<InProcessExchange>(group_, rank_, std::move(label), failure_);
    exchange->post(send, recv);
    return exchange;
  }

  const Traffic& sent() const override { return sent_; }

 private:
  Group& group_;
  const RankId rank_;
  Traffic sent_;
  std::string failure_;  // why no exchange can be started any more; empty as long as one can
};

void run_rank(Group& group, RankId rank, const std::function<void(Transport&)>& body) {
  try {
    InProcessTransport transport(group, rank);
    body(transport);
  } catch (const Error& e) {
    const Error named(e.code(), fmt::format("rank {}: {}", index(rank), e.what()));
    group.fail(rank, std::make_exception_ptr(named), e.what());
  } catch (const std::exception& e) {
    group.fail(rank, std::current_exception(), e.what());
  } catch (...) {
    group.fail(rank, std::current_exception(), "an exception of an unknown type");
  }
}

}  // namespace

void run_in_process(std::int32_t ep_size, const std::function<void(Transport&)>& body,
                    std::chrono::milliseconds timeout) {
  C2R_REQUIRE(ep_size > 0, kInvalidArgument, "ep_size is {}, but must be positive", ep_size);
  C2R_REQUIRE(timeout.count() > 0, kInvalidArgument, "the timeout is {} ms, but must be positive",
              timeout.count());
  Group group(ep_size, timeout);
  {
    std::vector<std::jthread> ranks;
    ranks.reserve(std::size_t(ep_size));
    std::int32_t r = 0;
    try {
      for (; r < ep_size; ++r) {
        ranks.emplace_back([&, rank = RankId{r}] { run_rank(group, rank, body); });
      }
    } catch (const std::system_error& e) {  // those that run must not wait for this one
      const auto what = fmt::format("cannot start its thread: {}", e.code().message());
      const Error error(ErrorCode::kUnsupported, fmt::format("rank {}: {}", r, what));
      group.fail(RankId{r}, std::make_exception_ptr(error), what);
    }
  }  // joined
  group.rethrow_first_failure();
}

}  // namespace c2r
