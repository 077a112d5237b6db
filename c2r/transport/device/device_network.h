// The interface through which ranks exchange device memory.
//
// A network works on a stream of its own, so that rows travel while the stream of its caller
// computes. There are two: StagedNetwork copies through host memory and a Transport, and
// works between any ranks, two processes on one device included; StreamNetwork enqueues the sends
// and receives of a library that takes part in the stream, such as NCCL.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "c2r/core/ids.h"
#include "c2r/transport/transport.h"

namespace c2r {

class DeviceNetwork {
 public:
  DeviceNetwork() = default;
  DeviceNetwork(const DeviceNetwork&) = delete;
  DeviceNetwork& operator=(const DeviceNetwork&) = delete;
  virtual ~DeviceNetwork() = default;

  /// Starts to send and receive device memory, behind all tasks that the caller's stream has so
  /// far. Both ranks start the exchanges between them in the same order, with the same sizes. Parts
  /// of 0 bytes are not sent. No part is for this rank itself.
  /// @param send,recv device memory, borrowed until the exchange is done and the tasks that the
  ///        caller's stream has at that time have run
  /// @returns the exchange: tasks that the caller's stream is given after wait(), or after done()
  ///          has returned true, may read what was received and reuse what was sent. wait() of a
  ///          StreamNetwork does not block the thread.
  /// @throws Error(kTransport) if the device or a peer fails
  [[nodiscard]] virtual std::unique_ptr<Exchange> start(std::span<const Outgoing> send,
                                                        std::span<const Incoming> recv,
                                                        std::string label) = 0;
};

}  // namespace c2r
