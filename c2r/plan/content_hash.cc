// Computes hashes of traces and token sets for the provenance of plans.
#include "c2r/plan/content_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "c2r/core/fingerprint.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

std::uint64_t hash_of_file(const std::string& path) {
  constexpr std::size_t kWholeBytes = 1 << 20, kNumWords = 4096, kWordBytes = 8;
  const MappedFile file(path);
  const std::span<const std::byte> bytes = file.bytes();
  Fingerprint hash(bytes.size());
  const std::size_t whole = std::min(kWholeBytes, bytes.size());
  hash.add_bytes(bytes.first(whole));
  hash.add_bytes(bytes.last(whole));
  for (std::size_t n = 0; bytes.size() > kWholeBytes && n < kNumWords; ++n) {
    hash.add_bytes(bytes.subspan((bytes.size() - kWordBytes) / kNumWords * n, kWordBytes));
  }
  return hash.value();
}

std::uint64_t hash_of_memory(const Trace& trace) {
  Fingerprint hash(static_cast<std::uint64_t>(trace.num_tokens()));
  hash.add(trace.header().num_experts);
  hash.add(trace.header().top_k);
  for (const std::int64_t start : trace.sequence_starts()) hash.add(start);
  for (std::int64_t layer = 0; layer < trace.header().num_layers(); ++layer) {
    const StoredTopkIdx ids = trace.stored_topk_idx(layer);
    hash.add_bytes(std::as_bytes(ids.u8));
    hash.add_bytes(std::as_bytes(ids.u16));
  }
  return hash.value();
}

}  // namespace

std::string content_hash(const Trace& trace) {
  return fmt::format("{:016x}",
                     trace.is_in_memory() ? hash_of_memory(trace) : hash_of_file(trace.path()));
}

std::string content_hash(const ModelTokenSets& sets) {
  Fingerprint hash(sets.layers.size());
  for (const TokenSets& layer : sets.layers) {
    hash.add(layer.num_tokens);
    hash.add(layer.num_sets());
    hash.add_bytes(std::as_bytes(layer.experts.all()));
    hash.add_bytes(std::as_bytes(std::span(layer.multiplicity)));
  }
  return fmt::format("{:016x}", hash.value());
}

}  // namespace c2r
