#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/copy_lists_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr std::int64_t kMaxCopies = std::numeric_limits<std::int32_t>::max();

// Sends row r of `out` to each rank r of `peers` and fills the same rows of `in`.
void exchange_numbers(Transport& transport, std::span<const RankId> peers,
                      const Matrix<std::int64_t>& out, Matrix<std::int64_t>& in,
                      const std::string& label) {
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (const RankId peer : peers) {
    const auto r = std::int64_t(index(peer));
    send.push_back({peer, std::as_bytes(out.row(r))});
    recv.push_back({peer, std::as_writable_bytes(in.row(r))});
  }
  transport.start(send, recv, label)->wait();
}

void check_agreement(std::int64_t fingerprint, const ListRules& rules, RankId peer,
                     const std::string& label) {
  C2R_REQUIRE(static_cast<std::uint64_t>(fingerprint) == rules.fingerprint, kTransport,
              "{}: rank {} has another placement, cluster, mode, replica rule or row type than "
              "this rank",
              label, index(peer));
}

// The bytes of a list on the wire: weights, slots, then the choices of each copy.
std::vector<std::byte> pack(const CopyList& list) {
  const auto weights = std::as_bytes(std::span(list.weight));
  const auto slots = std::as_bytes(std::span(list.slot));
  const auto counts = std::as_bytes(std::span(list.num_choices));
  std::vector<std::byte> bytes;
  bytes.reserve(weights.size() + slots.size() + counts.size());
  for (const auto part : {weights, slots, counts}) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  return bytes;
}

template <class T>
std::span<const std::byte> unpack(std::span<const std::byte> bytes, std::vector<T>& values) {
  const std::size_t size = values.size() * sizeof(T);
  if (size > 0) std::memcpy(values.data(), bytes.data(), size);
  return bytes.subspan(size);
}

void check_list(const CopyList& list, const ListRules& rules, RankId src,
                const std::string& label) {
  std::int64_t num_choices = 0;
  for (const std::uint8_t n : list.num_choices) {
    C2R_REQUIRE(1 <= n && n <= kMaxTopK, kTransport,
                "{}: rank {} sent a copy for {} choices, but they are 1 to {}", label, index(src),
                n, kMaxTopK);
    num_choices += n;
  }
  C2R_REQUIRE(num_choices == std::ssize(list.slot), kTransport,
              "{}: rank {} announced {} choices, but its copies have {}", label, index(src),
              list.slot.size(), num_choices);
  const auto bad =
      std::ranges::find_if(list.slot, [&](std::uint16_t slot) { return slot >= rules.num_slots; });
  C2R_REQUIRE(bad == list.slot.end(), kTransport, "{}: rank {} chose slot {}, but there are {}",
              label, index(src), *bad, rules.num_slots);
}

}  // namespace

bool CopyList::add(std::int32_t sent_item, std::uint16_t to_slot, float with_weight) {
  const bool is_new = item.empty() || item.back() != sent_item;
  if (is_new) item.push_back(sent_item), num_choices.push_back(0);
  ++num_choices.back();
  slot.push_back(to_slot);
  weight.push_back(with_weight);
  return is_new;
}

void exchange_lists(Transport& transport, std::span<const RankId> peers, const ListRules& rules,
                    std::span<const CopyList> out, std::span<CopyList> in,
                    const std::string& label) {
  Matrix<std::int64_t> counts_out(std::ssize(out), 3), counts_in(std::ssize(out), 3);
  for (const RankId peer : peers) {
    const auto row = counts_out.row(std::int64_t(index(peer)));
    row[0] = static_cast<std::int64_t>(rules.fingerprint);
    row[1] = out[index(peer)].num_copies();
    row[2] = std::ssize(out[index(peer)].slot);
  }
  exchange_numbers(transport, peers, counts_out, counts_in, label + " counts");

  std::vector<std::vector<std::byte>> bytes_out, bytes_in;
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (const RankId peer : peers) {
    const auto row = counts_in.row(std::int64_t(index(peer)));
    check_agreement(row[0], rules, peer, label);
    C2R_REQUIRE(
        0 <= row[1] && row[1] <= kMaxCopies && row[1] <= row[2] && row[2] <= row[1] * kMaxTopK,
        kTransport, "{}: rank {} announced {} copies for {} choices", label, index(peer), row[1],
        row[2]);
    CopyList& list = in[index(peer)];
    list.num_choices.resize(std::size_t(row[1]));
    list.slot.resize(std::size_t(row[2]));
    list.weight.resize(list.slot.size());
    bytes_out.push_back(pack(out[index(peer)]));
    bytes_in.emplace_back(list.slot.size() * (sizeof(float) + sizeof(std::uint16_t)) +
                          list.num_choices.size());
    send.push_back({peer, bytes_out.back()});
    recv.push_back({peer, bytes_in.back()});
  }
  transport.start(send, recv, label + " lists")->wait();
  for (std::size_t i = 0; i < peers.size(); ++i) {
    CopyList& list = in[index(peers[i])];
    const auto rest = unpack(unpack(bytes_in[i], list.weight), list.slot);
    (void)unpack(rest, list.num_choices);
    check_list(list, rules, peers[i], label);
  }
}

void exchange_slot_counts(Transport& transport, std::span<const RankId> peers,
                          const ListRules& rules, std::span<const CopyList> out,
                          std::span<CopyList> in, const std::string& label) {
  const std::int64_t num_columns = rules.num_slots + 1;
  Matrix<std::int64_t> counts_out(std::ssize(out), num_columns);
  Matrix<std::int64_t> counts_in(std::ssize(out), num_columns);
  for (const RankId peer : peers) {
    const auto row = counts_out.row(std::int64_t(index(peer)));
    row[0] = static_cast<std::int64_t>(rules.fingerprint);
    for (const std::uint16_t slot : out[index(peer)].slot) ++row[std::size_t(slot) + 1];
  }
  exchange_numbers(transport, peers, counts_out, counts_in, label + " counts");
  for (const RankId peer : peers) {
    const auto row = counts_in.row(std::int64_t(index(peer)));
    check_agreement(row[0], rules, peer, label);
    CopyList& list = in[index(peer)];
    std::int64_t num_copies = 0;
    for (std::int32_t slot = 0; slot < rules.num_slots; ++slot) {
      const std::int64_t count = row[std::size_t(slot) + 1];
      C2R_REQUIRE(0 <= count && count <= kMaxCopies - num_copies, kTransport,
                  "{}: rank {} announced {} copies for slot {}", label, index(peer), count, slot);
      num_copies += count;
      list.slot.insert(list.slot.end(), std::size_t(count), static_cast<std::uint16_t>(slot));
    }
    list.num_choices.assign(std::size_t(num_copies), 1);
  }
}

}  // namespace c2r
