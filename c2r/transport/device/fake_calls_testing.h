// Groups of sends and receives between fake devices in one process, and whether real ones would
// have waited for each other in a circle.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/core/error.h"
#include "c2r/transport/device/stream_network.h"

namespace c2r::testing {

// One group of a rank, in the order of its stream: bytes by peer.
struct CallGroup {
  std::vector<std::pair<std::size_t, std::size_t>> sends, recvs;
};

// Runs the groups of all ranks as NCCL does: a rank's groups one after the other, a send ends when
// the peer's current group has the receive that matches it, and a group when all its calls have.
// Returns what the ranks wait for, or nothing if all groups end.
inline std::string find_deadlock(std::vector<std::deque<CallGroup>> ranks) {
  const auto take = [](auto& calls, std::size_t peer, std::size_t& num_bytes) {
    for (auto call = calls.begin(); call != calls.end(); ++call) {
      if (call->first != peer) continue;
      num_bytes = call->second;
      calls.erase(call);
      return true;
    }
    return false;
  };
  for (bool has_moved = true; has_moved;) {
    has_moved = false;
    for (std::size_t src = 0; src < ranks.size(); ++src) {
      for (std::size_t dst = 0; dst < ranks.size(); ++dst) {
        if (ranks[src].empty() || ranks[dst].empty()) continue;
        std::size_t sent = 0, received = 0;
        CallGroup sender = ranks[src].front(), receiver = ranks[dst].front();
        if (!take(sender.sends, dst, sent) || !take(receiver.recvs, src, received)) continue;
        if (sent != received) {
          return fmt::format("rank {} sends {} bytes to rank {}, which expects {}", src, sent, dst,
                             received);
        }
        take(ranks[src].front().sends, dst, sent);
        take(ranks[dst].front().recvs, src, received);
        has_moved = true;
      }
    }
    for (auto& groups : ranks) {
      while (!groups.empty() && groups.front().sends.empty() && groups.front().recvs.empty()) {
        groups.pop_front(), has_moved = true;
      }
    }
  }
  std::string waits;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    if (!ranks[r].empty()) waits += fmt::format("rank {} waits; ", r);
  }
  return waits;
}

// What the ranks of a test share.
class FakeWire {
 public:
  explicit FakeWire(std::int32_t ep_size) : groups_(std::size_t(ep_size)) {}

  void log(std::size_t rank, CallGroup group) {
    const std::lock_guard lock(mutex_);
    groups_[rank].push_back(std::move(group));
  }
  void send(std::size_t src, std::size_t dst, std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    parts_[{src, dst}].emplace_back(bytes.begin(), bytes.end());
    arrived_.notify_all();
  }
  void receive(std::size_t src, std::size_t dst, std::span<std::byte> bytes) {
    std::unique_lock lock(mutex_);
    auto& parts = parts_[{src, dst}];
    C2R_REQUIRE(arrived_.wait_for(lock, std::chrono::seconds(20), [&] { return !parts.empty(); }),
                kTimeout, "rank {} got nothing from rank {}", dst, src);
    C2R_REQUIRE(parts.front().size() == bytes.size(), kTransport,
                "rank {} got {} bytes from rank {} instead of {}", dst, parts.front().size(), src,
                bytes.size());
    std::ranges::copy(parts.front(), bytes.begin());
    parts.pop_front();
  }
  std::string deadlock() const { return find_deadlock(groups_); }
  std::size_t num_groups(std::size_t rank) const { return groups_[rank].size(); }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::pair<std::size_t, std::size_t>, std::deque<std::vector<std::byte>>> parts_;
  std::vector<std::deque<CallGroup>> groups_;
};

class FakeCalls final : public GroupedCalls {
 public:
  FakeCalls(FakeWire& wire, RankId rank) : wire_(wire), rank_(index(rank)) {}

  void send_and_receive(std::span<const Outgoing> send, std::span<const Incoming> recv,
                        DeviceStream& stream) override {
    CallGroup group;
    for (const Outgoing& part : send) group.sends.emplace_back(index(part.dst), part.bytes.size());
    for (const Incoming& part : recv) group.recvs.emplace_back(index(part.src), part.bytes.size());
    wire_.log(rank_, group);
    dynamic_cast<FakeStream&>(stream).enqueue([&wire = wire_, rank = rank_,
                                               sends = std::vector(send.begin(), send.end()),
                                               recvs = std::vector(recv.begin(), recv.end())] {
      for (const Outgoing& part : sends) wire.send(rank, index(part.dst), part.bytes);
      for (const Incoming& part : recvs) wire.receive(index(part.src), rank, part.bytes);
    });
  }
  void check() override {}

 private:
  FakeWire& wire_;
  const std::size_t rank_;
};

}  // namespace c2r::testing
