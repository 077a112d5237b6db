// The exchange of copy lists: their sizes, or counts by slot, then the lists themselves, all
// checked.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/core/matrix.h"
#include "c2r/dispatch/rows/copy_lists_internal.h"
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

template <class T>
void append(const std::vector<T>& values, std::vector<std::byte>& bytes) {
  const auto raw = std::as_bytes(std::span(values));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

// A list on the wire: weights, slots, then the choices of each copy.
void pack(const CopyList& list, std::vector<std::byte>& bytes) {
  append(list.weight, bytes);
  append(list.slot, bytes);
  append(list.num_choices, bytes);
}

template <class T>
std::span<const std::byte> take(std::span<const std::byte> bytes, std::vector<T>& values) {
  const std::size_t size = values.size() * sizeof(T);
  if (size > 0) std::memcpy(values.data(), bytes.data(), size);
  return bytes.subspan(size);
}

std::span<const std::byte> unpack(std::span<const std::byte> bytes, CopyList& list) {
  return take(take(take(bytes, list.weight), list.slot), list.num_choices);
}

std::size_t packed_bytes(const CopyList& list) {
  return list.slot.size() * (sizeof(float) + sizeof(std::uint16_t)) + list.num_choices.size();
}

// Gives a list the size that its sender has announced.
void resize(CopyList& list, std::int64_t num_copies, std::int64_t num_choices, RankId src,
            const std::string& label) {
  C2R_REQUIRE(0 <= num_copies && num_copies <= kMaxCopies && num_copies <= num_choices &&
                  num_choices <= num_copies * kMaxTopK,
              kTransport, "{}: rank {} announced {} copies for {} choices", label, index(src),
              num_copies, num_choices);
  list.num_choices.resize(std::size_t(num_copies));
  list.slot.resize(std::size_t(num_choices));
  list.weight.resize(list.slot.size());
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
                    std::span<const ListPair> batches, const std::string& label) {
  const std::int64_t num_columns = 1 + 2 * std::ssize(batches);
  Matrix<std::int64_t> counts_out(transport.ep_size(), num_columns), counts_in = counts_out;
  for (const RankId peer : peers) {
    auto column = counts_out.row(std::int64_t(index(peer))).begin();
    *column++ = static_cast<std::int64_t>(rules.fingerprint);
    for (const ListPair& batch : batches) {
      *column++ = batch.out[index(peer)].num_copies();
      *column++ = std::ssize(batch.out[index(peer)].slot);
    }
  }
  exchange_numbers(transport, peers, counts_out, counts_in, label + " counts");

  std::vector<std::vector<std::byte>> bytes_out(peers.size()), bytes_in(peers.size());
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  for (std::size_t p = 0; p < peers.size(); ++p) {
    const RankId peer = peers[p];
    auto column = counts_in.row(std::int64_t(index(peer))).begin();
    check_agreement(*column++, rules, peer, label);
    std::size_t num_bytes_in = 0;
    for (const ListPair& batch : batches) {
      const std::int64_t num_copies = *column++;
      resize(batch.in[index(peer)], num_copies, *column++, peer, label);
      num_bytes_in += packed_bytes(batch.in[index(peer)]);
      pack(batch.out[index(peer)], bytes_out[p]);
    }
    bytes_in[p].resize(num_bytes_in);
    send.push_back({peer, bytes_out[p]});
    recv.push_back({peer, bytes_in[p]});
  }
  transport.start(send, recv, label + " lists")->wait();
  for (std::size_t p = 0; p < peers.size(); ++p) {
    std::span<const std::byte> rest = bytes_in[p];
    for (const ListPair& batch : batches) {
      rest = unpack(rest, batch.in[index(peers[p])]);
      check_list(batch.in[index(peers[p])], rules, peers[p], label);
    }
  }
}

namespace {

// The list that has `counts[s]` copies for each slot s.
void read_slot_counts(std::span<const std::int64_t> counts, CopyList& list, RankId src,
                      const std::string& label) {
  std::int64_t num_copies = 0;
  for (std::size_t slot = 0; slot < counts.size(); ++slot) {
    C2R_REQUIRE(0 <= counts[slot] && counts[slot] <= kMaxCopies - num_copies, kTransport,
                "{}: rank {} announced {} copies for slot {}", label, index(src), counts[slot],
                slot);
    num_copies += counts[slot];
    list.slot.insert(list.slot.end(), std::size_t(counts[slot]), static_cast<std::uint16_t>(slot));
  }
  list.num_choices.assign(list.slot.size(), 1);
}

}  // namespace

void exchange_slot_counts(Transport& transport, std::span<const RankId> peers,
                          const ListRules& rules, std::span<const ListPair> batches,
                          const std::string& label) {
  const auto num_slots = static_cast<std::size_t>(rules.num_slots);
  Matrix<std::int64_t> counts_out(transport.ep_size(), 1 + rules.num_slots * std::ssize(batches));
  Matrix<std::int64_t> counts_in = counts_out;
  for (const RankId peer : peers) {
    const auto row = counts_out.row(std::int64_t(index(peer)));
    row[0] = static_cast<std::int64_t>(rules.fingerprint);
    for (std::size_t b = 0; b < batches.size(); ++b) {
      const auto counts = row.subspan(1 + b * num_slots, num_slots);
      for (const std::uint16_t slot : batches[b].out[index(peer)].slot) ++counts[slot];
    }
  }
  exchange_numbers(transport, peers, counts_out, counts_in, label + " counts");
  for (const RankId peer : peers) {
    const auto row = counts_in.row(std::int64_t(index(peer)));
    check_agreement(row[0], rules, peer, label);
    for (std::size_t b = 0; b < batches.size(); ++b) {
      read_slot_counts(row.subspan(1 + b * num_slots, num_slots), batches[b].in[index(peer)], peer,
                       label);
    }
  }
}

}  // namespace c2r
