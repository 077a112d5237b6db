// Exchange of device memory through pinned host memory and a Transport.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/transport/device/device_network.h"

namespace c2r {

/// Host memory that tasks of a stream may still use. It is used again only when they have ended.
class PinnedPool {
 public:
  /// @param stream must outlive the pool
  explicit PinnedPool(DeviceStream& stream) : stream_(stream) {}
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;
  /// Waits for the tasks that use the memory.
  ~PinnedPool();

  /// @returns at least `num_bytes` bytes of pinned memory
  std::span<std::byte> take(std::int64_t num_bytes);
  /// Gives memory back, behind all tasks that the stream has so far.
  void give_back(std::span<std::byte> memory);

 private:
  struct Free {
    std::span<std::byte> memory;
    std::unique_ptr<DeviceEvent> used_until;
  };
  DeviceStream& stream_;
  std::vector<Free> free_;
};

/// Copies what is sent to pinned memory on a stream of its own, waits for the copies on the calling
/// thread, sends by a Transport, and copies what was received to the device. So a rank with a
/// device and one without exchange the same bytes.
///
/// Cost: the messages of Transport::start(); each byte crosses the bus of the device once in each
/// direction. start() blocks until the caller's stream has written the parts.
class StagedNetwork final : public DeviceNetwork {
 public:
  /// @param transport,compute,copies must outlive the network. `compute` is the caller's stream,
  ///        `copies` a stream of the same device that the network uses alone.
  StagedNetwork(Transport& transport, DeviceStream& compute, DeviceStream& copies)
      : transport_(transport), compute_(compute), copies_(copies), pinned_(copies) {}

  std::unique_ptr<Exchange> start(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                  std::string label) override;

 private:
  class Staged;

  Transport& transport_;
  DeviceStream& compute_;
  DeviceStream& copies_;
  PinnedPool pinned_;
};

}  // namespace c2r
