// Small collectives over any Transport: every rank of the group calls them, in the same order.
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

/// What each rank gave, as the rows of [ep_size, mine.size()], which is the same size on every
/// rank. Ends with every rank, so it is a barrier, too.
///
/// Every rank sends its values to every other: ep_size - 1 messages. That is one latency, and
/// whoever waits, waits for the rank that is missing itself, where a tree would make it wait for a
/// rank that waits for another. For a few values, not for gradients.
///
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

/// Replaces each value by its sum or maximum over all ranks. "Did anybody fail?" is the maximum of
/// a 0 or 1. `values` has the same length on every rank.
///
/// Cost, @throws: as all_gather()
void all_reduce(Transport& transport, std::span<std::int64_t> values, Reduction reduction,
                std::string label);

/// Returns when every rank has called it. ep_size - 1 messages of 1 byte.
/// @throws as Exchange::wait()
void barrier(Transport& transport, std::string label);

/// Rank 0 gives each rank its part, of any size. @returns this rank's
/// @param parts [ep_size] on rank 0; elsewhere ignored
/// @throws Error(kInvalidArgument) on rank 0 if there is not one part for each rank
/// Cost: two exchanges, of 8 bytes and of the part, from rank 0 to each.
/// @throws as Exchange::wait()
std::vector<std::byte> scatter_bytes(Transport& transport,
                                     std::span<const std::vector<std::byte>> parts,
                                     const std::string& label);

/// The reverse. @returns on rank 0 what each rank gave [ep_size], elsewhere nothing
std::vector<std::vector<std::byte>> gather_bytes(Transport& transport,
                                                 std::span<const std::byte> part,
                                                 const std::string& label);

/// Bytes of another rank as the values that they were.
template <class T>
std::vector<T> values_of(std::span<const std::byte> bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

/// The same for values. A rank of another byte order or another T is not our peer.
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
