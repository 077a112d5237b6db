// What the transports share: checks of a call, and how a wait that failed is told.
#pragma once

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

/// A time limit that starts anew whenever the number of open parts changes.
class Patience {
 public:
  using Clock = std::chrono::steady_clock;

  Patience(std::chrono::milliseconds timeout, std::size_t num_open)
      : timeout_(timeout), num_open_(num_open), deadline_(Clock::now() + timeout) {}

  Clock::time_point deadline() const { return deadline_; }
  bool is_over(std::size_t num_open) {
    const auto now = Clock::now();
    if (num_open != num_open_) {
      num_open_ = num_open;
      deadline_ = now + timeout_;
    }
    return now >= deadline_;
  }

  /// Of the Error(kTimeout) to throw when it is over.
  std::string message(const std::string& label, std::span<const OpenPart> open) const;

 private:
  std::chrono::milliseconds timeout_;
  std::size_t num_open_;
  Clock::time_point deadline_;
};

}  // namespace c2r
