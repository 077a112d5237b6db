// A pool of buffers that are reused between batches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace c2r {

struct Buffer {
  std::unique_ptr<std::byte[]> data;  // aligned for any number
  std::int64_t num_bytes = 0;
};

/// Keeps buffers for their next use. It holds no more buffers than were in use at once.
class BufferPool {
 public:
  /// @returns a buffer of at least `num_bytes` bytes of unspecified content
  Buffer take(std::int64_t num_bytes) {
    if (num_bytes == 0) return {};
    const auto fits = std::ranges::find_if(
        free_, [&](const Buffer& buffer) { return buffer.num_bytes >= num_bytes; });
    if (fits != free_.end()) {
      Buffer buffer = std::move(*fits);
      free_.erase(fits);
      return buffer;
    }
    if (!free_.empty()) free_.pop_back();  // the largest of those that are too small
    // A quarter more, since the next batch will be a little larger or smaller.
    const std::int64_t capacity = num_bytes + num_bytes / 4;
    return {std::make_unique_for_overwrite<std::byte[]>(std::size_t(capacity)), capacity};
  }

  void give_back(Buffer& buffer) {
    if (buffer.num_bytes == 0) return;
    const auto place = std::ranges::lower_bound(free_, buffer.num_bytes, {}, &Buffer::num_bytes);
    free_.insert(place, std::exchange(buffer, {}));
  }

 private:
  std::vector<Buffer> free_;  // ascending
};

}  // namespace c2r
