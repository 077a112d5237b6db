// The interface of a stream of a device: tasks that run in order, and memory that is reused in that
// order.
//
// Calls enqueue tasks and may return before the tasks have run. Tasks of two streams have no order
// but by events:
//
//   auto written = compute.record();
//   copies.wait(*written);  // later tasks of `copies` run after the earlier tasks of `compute`
//
// CudaStream is the implementation for NVIDIA GPUs; FakeStream is the one of tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace c2r {

/// A place in the order of a stream's tasks.
class DeviceEvent {
 public:
  DeviceEvent() = default;
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;
  virtual ~DeviceEvent() = default;

  /// @returns whether all tasks before it have ended
  /// @throws Error(kTransport) if the device has failed
  [[nodiscard]] virtual bool is_over() = 0;
  /// Blocks the calling thread until is_over().
  /// @throws as is_over()
  virtual void synchronize() = 0;
};

/// A stream of a device. One thread uses it. All calls throw Error(kTransport) if the device fails.
class DeviceStream {
 public:
  DeviceStream() = default;
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;
  virtual ~DeviceStream() = default;

  /// @returns memory of the device, aligned to 256 bytes, of unspecified content, which later tasks
  ///          of this stream may use; null for 0 bytes
  virtual std::byte* allocate(std::int64_t num_bytes) = 0;
  /// Frees memory behind all earlier tasks of this stream. Tasks of other streams that use the
  /// memory must come before, by an event.
  virtual void free(std::byte* memory) noexcept = 0;

  /// @returns host memory that a device copies from and to while the host goes on
  virtual std::byte* allocate_pinned(std::int64_t num_bytes) = 0;
  virtual void free_pinned(std::byte* memory) noexcept = 0;

  /// Copies host memory to the device. `from` may be reused when the call returns.
  virtual void upload(std::span<const std::byte> from, std::byte* to) = 0;
  /// Copy between pinned memory and the device; both are used until the task has run.
  virtual void copy_from_pinned(std::span<const std::byte> from, std::byte* to) = 0;
  virtual void copy_to_pinned(std::span<const std::byte> from, std::byte* to) = 0;

  /// @returns an event behind all tasks so far
  virtual std::unique_ptr<DeviceEvent> record() = 0;
  /// Makes later tasks of this stream run after `event`, which is of the same device.
  virtual void wait(const DeviceEvent& event) = 0;
  /// @returns the stream of the device's own library, such as a cudaStream_t; null if there is none
  virtual void* native() { return nullptr; }
};

/// Owns memory of a device, which it frees in the order of its stream.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// @param stream must outlive this object
  DeviceBuffer(DeviceStream& stream, std::int64_t num_bytes)
      : stream_(&stream), data_(stream.allocate(num_bytes)), num_bytes_(num_bytes) {}
  DeviceBuffer(DeviceBuffer&& from) noexcept { *this = std::move(from); }
  DeviceBuffer& operator=(DeviceBuffer&& from) noexcept {
    std::swap(stream_, from.stream_);
    std::swap(data_, from.data_);
    std::swap(num_bytes_, from.num_bytes_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) stream_->free(data_);
  }

  std::byte* data() const { return data_; }
  std::span<std::byte> bytes() const { return {data_, static_cast<std::size_t>(num_bytes_)}; }

 private:
  DeviceStream* stream_ = nullptr;
  std::byte* data_ = nullptr;
  std::int64_t num_bytes_ = 0;
};

/// Owns pinned memory. No task may use it when it is destroyed.
class PinnedBuffer {
 public:
  /// @param stream must outlive this object
  PinnedBuffer(DeviceStream& stream, std::int64_t num_bytes)
      : stream_(stream), data_(stream.allocate_pinned(num_bytes)) {}
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer() { stream_.free_pinned(data_); }

  std::byte* data() const { return data_; }

 private:
  DeviceStream& stream_;
  std::byte* data_;
};

}  // namespace c2r
