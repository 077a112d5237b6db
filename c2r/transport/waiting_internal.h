// What the transports share: checks of a call's arguments, and the messages of waits that failed.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/transport/transport.h"

namespace c2r {

enum class Direction { kIn, kOut };

/// A part, or the rest of a part, that has not arrived or left yet.
struct OpenPart {
  RankId peer;
  Direction direction;
  std::int64_t num_bytes = 0;
};

/// @returns "rank 2 (1024 bytes from it, 8 bytes to it) and rank 5 (1 bytes from it)"; of many
///          ranks, only the first are named
std::string describe(std::span<const OpenPart> open);

/// @throws Error(kInvalidArgument) if a rank of the lists is not in [0, ep_size)
void check_ranks(std::span<const Outgoing> send, std::span<const Incoming> recv,
                 std::int32_t ep_size, const std::string& label);

/// Copies the parts that rank `rank` sends to itself: its n-th outgoing part is its n-th incoming.
/// @throws Error(kTransport) if sizes disagree
void copy_own_parts(std::span<const Outgoing> send, std::span<const Incoming> recv, RankId rank);

/// Adds the parts that go to ranks other than `rank` to `sent`.
void count_traffic(std::span<const Outgoing> send, RankId rank, Traffic& sent);

/// A timer that expires when no part has arrived or left for the timeout.
class StandstillTimer {
 public:
  using Clock = std::chrono::steady_clock;

  explicit StandstillTimer(std::chrono::milliseconds timeout)
      : timeout_(timeout), deadline_(Clock::now() + timeout) {}

  Clock::time_point deadline() const { return deadline_; }
  /// Restarts the timer, because a part has arrived or left at `when`.
  void moved(Clock::time_point when = Clock::now()) {
    deadline_ = std::max(deadline_, when + timeout_);
  }
  bool is_over() const { return Clock::now() >= deadline_; }

  /// @returns the message of the Error(kTimeout) to throw when the timer has expired
  std::string message(const std::string& label, std::span<const OpenPart> open) const;

 private:
  std::chrono::milliseconds timeout_;
  Clock::time_point deadline_;
};

}  // namespace c2r
