// Small collectives over any Transport. Every rank of the group calls them, in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// Collective: every rank calls it, with the same number of values. It is a barrier, too, because
/// no rank returns before all ranks have called it.
///
/// Cost: ep_size - 1 messages from each rank, and one latency. Every rank sends its values to every
/// other rank, so an error names the rank that is missing; in a tree it would name a rank that
/// itself waits for another. Meant for a few values, not for gradients.
///
/// @returns the values of all ranks, [ep_size, mine.size()]
/// @throws as Exchange::wait()
template <class T>
Matrix<T> all_gather(Transport& transport, std::span<const T> mine, std::string label) {
  static_assert(std::is_trivially_copyable_v<T>);
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

enum class Reduction { kSum, kMax };

/// Replaces each value by its sum or maximum over all ranks. The maximum of a 0 or 1 tells whether
/// any rank has failed. Collective: every rank calls it, with the same number of values.
///
/// Cost: as all_gather().
/// @throws as all_gather()
void all_reduce(Transport& transport, std::span<std::int64_t> values, Reduction reduction,
                std::string label);

/// Returns when every rank has called it. Collective.
/// Cost: ep_size - 1 messages of 1 byte from each rank.
/// @throws as Exchange::wait()
void barrier(Transport& transport, std::string label);

/// Rank 0 sends each rank its part, which may have any size. Collective.
/// @param parts [ep_size] on rank 0; ignored on the other ranks
/// @returns the part of this rank
/// @throws Error(kInvalidArgument) on rank 0 if there is not one part for each rank, and as
///         Exchange::wait()
/// Cost: two exchanges from rank 0 to each rank: 8 bytes, and the part.
std::vector<std::byte> scatter_bytes(Transport& transport,
                                     std::span<const std::vector<std::byte>> parts,
                                     const std::string& label);

/// The reverse of scatter_bytes(): each rank sends its part to rank 0. Collective.
/// @returns on rank 0 the parts of all ranks, [ep_size]; nothing on the other ranks
/// Cost: two exchanges from each rank to rank 0: 8 bytes, and the part.
/// @throws as Exchange::wait()
std::vector<std::vector<std::byte>> gather_bytes(Transport& transport,
                                                 std::span<const std::byte> part,
                                                 const std::string& label);

/// @throws Error(kTransport) if `num_bytes` is no multiple of `value_bytes`
void check_whole_values(std::size_t num_bytes, std::size_t value_bytes);

/// Reads bytes that another rank has sent as values of type T.
/// @throws Error(kTransport) if the bytes are not a whole number of values
template <class T>
std::vector<T> values_of(std::span<const std::byte> bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  check_whole_values(bytes.size(), sizeof(T));
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

/// As scatter_bytes() and gather_bytes(), with parts of values. All ranks have the same byte order.
template <class T>
std::vector<T> scatter(Transport& transport, std::span<const std::vector<T>> parts,
                       const std::string& label) {
  std::vector<std::vector<std::byte>> bytes;
  for (const std::vector<T>& part : parts) {
    const auto view = std::as_bytes(std::span(part));
    bytes.emplace_back(view.begin(), view.end());
  }
  return values_of<T>(scatter_bytes(transport, bytes, label));
}
template <class T>
std::vector<std::vector<T>> gather(Transport& transport, std::span<const T> part,
                                   const std::string& label) {
  std::vector<std::vector<T>> parts;
  for (const auto& bytes : gather_bytes(transport, std::as_bytes(part), label)) {
    parts.push_back(values_of<T>(bytes));
  }
  return parts;
}

}  // namespace c2r
