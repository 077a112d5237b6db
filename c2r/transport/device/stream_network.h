// Exchange of device memory by a library whose sends and receives are tasks of a stream, as NCCL's.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/transport/device/device_network.h"

namespace c2r {

/// The sends and receives of such a library.
class GroupedCalls {
 public:
  GroupedCalls() = default;
  GroupedCalls(const GroupedCalls&) = delete;
  GroupedCalls& operator=(const GroupedCalls&) = delete;
  virtual ~GroupedCalls() = default;

  /// Enqueues one group of sends and receives, none of them empty, as one task of `stream`. The
  /// task ends when all of them have ended; until then, later groups of the rank do not start.
  /// @throws Error(kTransport) with the name of the call that failed
  virtual void send_and_receive(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                DeviceStream& stream) = 0;
  /// @throws Error(kTransport) if a group that was enqueued before has failed
  virtual void check() = 0;
};

/// A network whose exchanges are groups on a stream of its own. No call blocks the thread, and
/// nothing waits with a time limit: a rank that has failed is found by check(), which done() calls.
///
/// A group waits for its peers while later groups wait behind it, so all ranks must start their
/// exchanges in an order in which none waits for another in a circle. Ranks that follow
/// pipeline_steps() do.
///
/// Cost: one group a call with a send and a receive for each part that is not empty; two events.
class StreamNetwork final : public DeviceNetwork {
 public:
  /// @param calls,compute,travel must outlive the network. `compute` is the caller's stream,
  ///        `travel` a stream of the same device that the network uses alone.
  StreamNetwork(GroupedCalls& calls, DeviceStream& compute, DeviceStream& travel)
      : calls_(calls), compute_(compute), travel_(travel) {}

  std::unique_ptr<Exchange> start(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                  std::string label) override;

 private:
  class Travelling;

  GroupedCalls& calls_;
  DeviceStream& compute_;
  DeviceStream& travel_;
};

}  // namespace c2r
