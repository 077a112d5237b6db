// Copies between device and pinned memory around an exchange of the host's transport.
#include "c2r/transport/device/staged_network.h"

#include <algorithm>
#include <utility>

namespace c2r {

PinnedPool::~PinnedPool() {
  for (const Free& free : free_) {
    try {
      free.used_until->synchronize();
    } catch (...) {  // NOLINT(bugprone-empty-catch): the device has failed, so no task uses it
    }
    stream_.free_pinned(free.memory.data());
  }
}

std::span<std::byte> PinnedPool::take(std::int64_t num_bytes) {
  if (num_bytes == 0) return {};
  const auto fits = std::ranges::find_if(free_, [&](const Free& free) {
    return std::ssize(free.memory) >= num_bytes && free.used_until->is_over();
  });
  if (fits != free_.end()) {
    const auto memory = fits->memory;
    free_.erase(fits);
    return memory;
  }
  // A quarter more, since the next batch will be a little larger or smaller.
  const std::int64_t capacity = num_bytes + num_bytes / 4;
  return {stream_.allocate_pinned(capacity), static_cast<std::size_t>(capacity)};
}

void PinnedPool::give_back(std::span<std::byte> memory) {
  if (!memory.empty()) free_.push_back({memory, stream_.record()});
}

class StagedNetwork::Staged final : public Exchange {
 public:
  Staged(StagedNetwork& network, std::span<const Outgoing> send, std::span<const Incoming> recv,
         std::string label)
      : network_(network) {
    network.copies_.wait(*network.compute_.record());
    std::vector<Outgoing> sent;
    std::vector<Incoming> received;
    for (const Outgoing& part : send) {
      const auto pinned = take(part.bytes.size());
      network.copies_.copy_to_pinned(part.bytes, pinned.data());
      sent.push_back({part.dst, pinned});
    }
    for (const Incoming& part : recv) {
      const auto pinned = take(part.bytes.size());
      received.push_back({part.src, pinned});
      arriving_.push_back({pinned, part.bytes.data()});
    }
    network.copies_.record()->synchronize();
    inner_ = network.transport_.start(sent, received, std::move(label));
  }
  ~Staged() override {
    inner_.reset();  // the transport touches no memory afterwards
    try {
      for (const auto& memory : taken_) network_.pinned_.give_back(memory);
    } catch (...) {  // NOLINT(bugprone-empty-catch): the device has failed; its next call says so
    }
  }

  bool done() override {
    if (!inner_->done()) return false;
    store();
    return true;
  }
  void wait() override {
    inner_->wait();
    store();
  }

 private:
  struct Arriving {
    std::span<const std::byte> pinned;
    std::byte* to;
  };

  std::span<std::byte> take(std::size_t num_bytes) {
    const auto memory = network_.pinned_.take(static_cast<std::int64_t>(num_bytes));
    taken_.push_back(memory);
    return memory.first(num_bytes);
  }
  // Enqueues the copies to the device, once.
  void store() {
    if (std::exchange(is_stored_, true)) return;
    for (const Arriving& part : arriving_) {
      network_.copies_.copy_from_pinned(part.pinned, part.to);
    }
    network_.compute_.wait(*network_.copies_.record());
  }

  StagedNetwork& network_;
  std::vector<std::span<std::byte>> taken_;
  std::vector<Arriving> arriving_;
  std::unique_ptr<Exchange> inner_;
  bool is_stored_ = false;
};

std::unique_ptr<Exchange> StagedNetwork::start(std::span<const Outgoing> send,
                                               std::span<const Incoming> recv, std::string label) {
  return std::make_unique<Staged>(*this, send, recv, std::move(label));
}

}  // namespace c2r
