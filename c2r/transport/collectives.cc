// Collectives made of one or two exchanges, in which every rank talks to every other, or to rank 0.
#include "c2r/transport/collectives.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

constexpr RankId kRoot{0};

}  // namespace

void check_whole_values(std::size_t num_bytes, std::size_t value_bytes) {
  C2R_REQUIRE(num_bytes % value_bytes == 0, kTransport,
              "{} bytes were received where values of {} bytes are expected", num_bytes,
              value_bytes);
}

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
  (void)all_gather<std::byte>(transport, {&here, 1}, std::move(label));
}

std::vector<std::byte> scatter_bytes(Transport& transport,
                                     std::span<const std::vector<std::byte>> parts,
                                     const std::string& label) {
  const bool is_root = transport.rank() == kRoot;
  const std::int32_t num_parts = is_root ? transport.ep_size() : 0;
  C2R_REQUIRE(!is_root || std::ssize(parts) == num_parts, kInvalidArgument,
              "{}: rank 0 has parts for {} ranks, but there are {}", label, parts.size(),
              num_parts);
  std::vector<std::int64_t> sizes;
  for (const auto& part : parts) sizes.push_back(std::ssize(part));
  std::int64_t size = 0;
  std::vector<Outgoing> send;
  send.reserve(sizes.size());
  for (std::int32_t peer = 0; peer < num_parts; ++peer) {
    send.push_back({RankId{peer}, std::as_bytes(std::span(sizes).subspan(std::size_t(peer), 1))});
  }
  const Incoming size_here{kRoot, std::as_writable_bytes(std::span(&size, 1))};
  transport.start(send, {&size_here, 1}, label + " (sizes)")->wait();

  std::vector<std::byte> here(static_cast<std::size_t>(size));
  for (std::size_t peer = 0; peer < send.size(); ++peer) send[peer].bytes = parts[peer];
  const Incoming part_here{kRoot, here};
  transport.start(send, {&part_here, 1}, label)->wait();
  return here;
}

std::vector<std::vector<std::byte>> gather_bytes(Transport& transport,
                                                 std::span<const std::byte> part,
                                                 const std::string& label) {
  const bool is_root = transport.rank() == kRoot;
  const auto num_parts = static_cast<std::size_t>(is_root ? transport.ep_size() : 0);
  const std::int64_t size_here = std::ssize(part);
  std::vector<std::int64_t> sizes(num_parts);
  std::vector<Incoming> recv;
  recv.reserve(num_parts);
  for (std::size_t peer = 0; peer < num_parts; ++peer) {
    recv.push_back({RankId{static_cast<std::int32_t>(peer)},
                    std::as_writable_bytes(std::span(sizes).subspan(peer, 1))});
  }
  const Outgoing send_size{kRoot, std::as_bytes(std::span(&size_here, 1))};
  transport.start({&send_size, 1}, recv, label + " (sizes)")->wait();

  std::vector<std::vector<std::byte>> parts(num_parts);
  for (std::size_t peer = 0; peer < num_parts; ++peer) {
    parts[peer].resize(static_cast<std::size_t>(sizes[peer]));
    recv[peer].bytes = parts[peer];
  }
  const Outgoing send_part{kRoot, part};
  transport.start({&send_part, 1}, recv, label)->wait();
  return parts;
}

}  // namespace c2r
