#include "c2r/transport/collectives.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "c2r/core/matrix.h"

namespace c2r {
namespace {

// Row r of the result is what rank r gave. Ends with every rank, so also a barrier.
template <class T>
Matrix<T> all_gather(Transport& transport, std::span<const T> mine, std::string label) {
  Matrix<T> all(transport.ep_size(), std::ssize(mine));
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (std::int32_t peer = 0; peer < transport.ep_size(); ++peer) {
    send.push_back({RankId{peer}, std::as_bytes(mine)});
    recv.push_back({RankId{peer}, std::as_writable_bytes(all.row(peer))});
  }
  transport.start(send, recv, std::move(label))->wait();
  return all;
}

}  // namespace

void all_reduce(Transport& transport, std::span<std::int64_t> values, Reduction reduction,
                std::string label) {
  const auto all = all_gather<std::int64_t>(transport, values, std::move(label));
  std::ranges::copy(all.row(0), values.begin());
  for (std::int64_t rank = 1; rank < all.rows(); ++rank) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::int64_t other = all.row(rank)[i];
      values[i] = reduction == Reduction::kSum ? values[i] + other : std::max(values[i], other);
    }
  }
}

void barrier(Transport& transport, std::string label) {
  const std::byte here{};
  all_gather<std::byte>(transport, {&here, 1}, std::move(label));
}

}  // namespace c2r
