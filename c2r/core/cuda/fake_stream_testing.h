// A device for tests: its streams run their tasks as late as possible, so that a missing wait and
// memory that is reused early show in the results.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "c2r/core/cuda/device_stream.h"

namespace c2r::testing {

// The memory of the device, and what its streams have in common. Fresh and freed memory is poison:
// all of its bits are set, which is NaN in f32, f16 and bf16. No memory is used twice.
class FakeDevice {
 public:
  std::byte* allocate(std::int64_t num_bytes) {
    if (num_bytes == 0) return nullptr;
    const auto size = static_cast<std::size_t>(num_bytes);
    memory_.push_back({std::make_unique<std::byte[]>(size), size});
    poison(memory_.back().data.get());
    return memory_.back().data.get();
  }
  void poison(std::byte* data) {
    const auto found = std::ranges::find_if(
        memory_, [&](const Memory& memory) { return memory.data.get() == data; });
    std::memset(data, 0xff, found->size);
  }

  // Makes the wait that comes after `number` others do nothing, be it of a stream or of the host.
  void ignore_wait(int number) { ignored_wait_ = number; }
  bool is_ignored_wait() { return num_waits_++ == ignored_wait_; }
  int num_waits() const { return num_waits_; }

 private:
  struct Memory {
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;
  };
  std::vector<Memory> memory_;
  int num_waits_ = 0, ignored_wait_ = -1;
};

class FakeStream final : public DeviceStream {
 public:
  // @param runs_early whether tasks run at once instead: some missing waits only show where one
  //        stream is early and another late
  explicit FakeStream(FakeDevice& device, bool runs_early = false)
      : device_(device), runs_early_(runs_early) {}

  void enqueue(std::function<void()> task) {
    queue_.push_back(std::move(task)), ++num_enqueued_;
    if (runs_early_) synchronize();
  }
  // Runs the first `number` tasks, of all that were ever enqueued.
  void run_until(std::int64_t number) {
    while (num_started_ < number) {
      const auto task = std::move(queue_.front());
      queue_.pop_front(), ++num_started_;
      task();
    }
  }
  void synchronize() { run_until(num_enqueued_); }

  std::byte* allocate(std::int64_t num_bytes) override { return device_.allocate(num_bytes); }
  void free(std::byte* memory) noexcept override {
    enqueue([this, memory] { device_.poison(memory); });
  }
  std::byte* allocate_pinned(std::int64_t num_bytes) override {
    return device_.allocate(num_bytes);
  }
  void free_pinned(std::byte* memory) noexcept override {
    if (memory != nullptr) device_.poison(memory);
  }
  void upload(std::span<const std::byte> from, std::byte* to) override {
    enqueue([bytes = std::vector(from.begin(), from.end()), to] { std::ranges::copy(bytes, to); });
  }
  void copy_from_pinned(std::span<const std::byte> from, std::byte* to) override {
    enqueue([from, to] { std::ranges::copy(from, to); });
  }
  void copy_to_pinned(std::span<const std::byte> from, std::byte* to) override {
    copy_from_pinned(from, to);
  }
  std::unique_ptr<DeviceEvent> record() override {
    return std::make_unique<Event>(*this, num_enqueued_);
  }
  void wait(const DeviceEvent& event) override {
    if (device_.is_ignored_wait()) return;
    const auto& of_fake = dynamic_cast<const Event&>(event);
    enqueue([&stream = of_fake.stream, number = of_fake.number] { stream.run_until(number); });
  }

 private:
  struct Event final : DeviceEvent {
    Event(FakeStream& of_stream, std::int64_t num_before) : stream(of_stream), number(num_before) {}
    bool is_over() override { return stream.num_started_ >= number; }
    void synchronize() override {
      if (!stream.device_.is_ignored_wait()) stream.run_until(number);
    }
    FakeStream& stream;
    const std::int64_t number;
  };

  FakeDevice& device_;
  const bool runs_early_;
  std::deque<std::function<void()>> queue_;
  std::int64_t num_enqueued_ = 0, num_started_ = 0;
};

}  // namespace c2r::testing
