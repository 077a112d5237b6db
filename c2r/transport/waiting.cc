// Checks of a transport's arguments, copies of own parts, traffic counts, and texts of failed
// waits.
#include <fmt/format.h>

#include <cstring>
#include <map>

#include "c2r/core/error.h"
#include "c2r/transport/waiting_internal.h"

namespace c2r {

std::string describe(std::span<const OpenPart> open) {
  struct Bytes {
    std::int64_t in = 0, out = 0;
  };
  std::map<RankId, Bytes> of_rank;
  for (const OpenPart& part : open) {
    Bytes& bytes = of_rank[part.peer];
    (part.direction == Direction::kIn ? bytes.in : bytes.out) += part.num_bytes;
  }

  constexpr std::size_t kMaxNamed = 4;  // one line, whatever the size of the group
  std::vector<std::string> names;
  for (const auto& [rank, bytes] : of_rank) {
    if (names.size() == kMaxNamed) break;
    const std::string in = bytes.in > 0 ? fmt::format("{} bytes from it", bytes.in) : "";
    const std::string out = bytes.out > 0 ? fmt::format("{} bytes to it", bytes.out) : "";
    names.push_back(fmt::format("rank {} ({}{}{})", index(rank), in,
                                !in.empty() && !out.empty() ? ", " : "", out));
  }
  if (of_rank.size() > names.size()) {
    names.push_back(fmt::format("{} others", of_rank.size() - names.size()));
  }
  return fmt::format("{}", fmt::join(names, " and "));
}

void check_ranks(std::span<const Outgoing> send, std::span<const Incoming> recv,
                 std::int32_t ep_size, const std::string& label) {
  const auto check = [&](RankId rank) {
    C2R_REQUIRE(RankId{0} <= rank && rank < RankId{ep_size}, kInvalidArgument,
                "{}: there is no rank {} in a group of {}", label, static_cast<std::int32_t>(rank),
                ep_size);
  };
  for (const Outgoing& part : send) check(part.dst);
  for (const Incoming& part : recv) check(part.src);
}

void copy_own_parts(std::span<const Outgoing> send, std::span<const Incoming> recv, RankId rank) {
  const auto is_own = [rank](RankId peer, std::span<const std::byte> bytes) {
    return peer == rank && !bytes.empty();
  };
  std::size_t from = 0;
  for (const auto& [src, bytes] : recv) {
    if (!is_own(src, bytes)) continue;
    while (from < send.size() && !is_own(send[from].dst, send[from].bytes)) ++from;
    const auto sent = from < send.size() ? send[from++].bytes : std::span<const std::byte>{};
    C2R_REQUIRE(sent.size() == bytes.size(), kTransport,
                "rank {} sends itself {} bytes where {} are expected", index(rank), sent.size(),
                bytes.size());
    std::memcpy(bytes.data(), sent.data(), sent.size());
  }
  for (; from < send.size(); ++from) {
    C2R_REQUIRE(!is_own(send[from].dst, send[from].bytes), kTransport,
                "rank {} sends itself {} bytes where none are expected", index(rank),
                send[from].bytes.size());
  }
}

void count_traffic(std::span<const Outgoing> send, RankId rank, Traffic& sent) {
  for (const Outgoing& part : send) {
    if (part.dst == rank || part.bytes.empty()) continue;
    ++sent.num_messages[index(part.dst)];
    sent.num_bytes[index(part.dst)] += std::ssize(part.bytes);
  }
}

std::string StandstillTimer::message(const std::string& label,
                                     std::span<const OpenPart> open) const {
  return fmt::format("{}: nothing moved for {} ms while waiting for {}", label, timeout_.count(),
                     describe(open));
}

}  // namespace c2r
