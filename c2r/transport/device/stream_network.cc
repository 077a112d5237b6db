// Puts groups of sends and receives between two events: the rows are written, the rows are there.
#include "c2r/transport/device/stream_network.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {

class StreamNetwork::Travelling final : public Exchange {
 public:
  Travelling(StreamNetwork& network, std::unique_ptr<DeviceEvent> arrived, std::string label)
      : network_(network), arrived_(std::move(arrived)), label_(std::move(label)) {}

  bool done() override {
    check();
    return arrived_->is_over();
  }
  void wait() override {
    check();
    if (!std::exchange(is_waited_for_, true)) network_.compute_.wait(*arrived_);
  }

 private:
  void check() const {
    try {
      network_.calls_.check();
    } catch (const Error& error) {
      throw Error(error.code(), label_ + ": " + error.what());
    }
  }

  StreamNetwork& network_;
  const std::unique_ptr<DeviceEvent> arrived_;
  const std::string label_;
  bool is_waited_for_ = false;
};

std::unique_ptr<Exchange> StreamNetwork::start(std::span<const Outgoing> send,
                                               std::span<const Incoming> recv, std::string label) {
  const auto is_not_empty = [](const auto& part) { return !part.bytes.empty(); };
  std::vector<Outgoing> sent;
  std::vector<Incoming> received;
  std::ranges::copy_if(send, std::back_inserter(sent), is_not_empty);
  std::ranges::copy_if(recv, std::back_inserter(received), is_not_empty);
  travel_.wait(*compute_.record());
  if (!sent.empty() || !received.empty()) calls_.send_and_receive(sent, received, travel_);
  return std::make_unique<Travelling>(*this, travel_.record(), std::move(label));
}

}  // namespace c2r
