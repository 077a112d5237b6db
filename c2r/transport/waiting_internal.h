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

/// A part, or a piece of one, that has not arrived or left yet.
struct OpenPart {
  RankId peer;
  Direction direction;
  std::int64_t num_bytes = 0;
};

/// "rank 2 (1024 bytes from it, 8 bytes to it) and rank 5 (1 bytes from it)". Many ranks are cut
/// short.
std::string describe(std::span<const OpenPart> open);

/// @throws Error(kInvalidArgument) if a rank of the lists is not in [0, ep_size)
void check_ranks(std::span<const Outgoing> send, std::span<const Incoming> recv,
                 std::int32_t ep_size, const std::string& label);

/// Copies what rank `rank` sends to itself: its n-th part is the n-th that it expects.
/// @throws Error(kTransport) if sizes disagree
void copy_own_parts(std::span<const Outgoing> send, std::span<const Incoming> recv, RankId rank);

/// Adds to `sent` what goes to ranks other than `rank`.
void count_traffic(std::span<const Outgoing> send, RankId rank, Traffic& sent);

/// A time limit that starts anew whenever a part comes or goes.
class StandstillTimer {
 public:
  using Clock = std::chrono::steady_clock;

  explicit StandstillTimer(std::chrono::milliseconds timeout)
      : timeout_(timeout), deadline_(Clock::now() + timeout) {}

  Clock::time_point deadline() const { return deadline_; }
  /// A part has come or gone, now or at a time before.
  void moved(Clock::time_point when = Clock::now()) {
    deadline_ = std::max(deadline_, when + timeout_);
  }
  bool is_over() const { return Clock::now() >= deadline_; }

  /// Of the Error(kTimeout) to throw when it is over.
  std::string message(const std::string& label, std::span<const OpenPart> open) const;

 private:
  std::chrono::milliseconds timeout_;
  Clock::time_point deadline_;
};

}  // namespace c2r
