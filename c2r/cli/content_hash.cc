#include "c2r/cli/content_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "c2r/core/rng.h"
#include "c2r/io/file.h"

namespace c2r::cli {

std::string content_hash(const std::string& path) {
  constexpr std::size_t kWholeBytes = 1 << 20, kNumWords = 4096;
  const MappedFile file(path);
  const std::span<const std::byte> bytes = file.bytes();
  std::uint64_t hash = bytes.size();
  const auto add = [&](std::span<const std::byte> part) {
    while (!part.empty()) {
      std::uint64_t word = 0;
      const std::size_t count = std::min(part.size(), sizeof(word));
      std::memcpy(&word, part.data(), count);
      hash = mix_bits(hash + word);
      part = part.subspan(count);
    }
  };
  const std::size_t whole = std::min(kWholeBytes, bytes.size());
  add(bytes.first(whole));
  add(bytes.last(whole));
  for (std::size_t n = 0; bytes.size() > kWholeBytes && n < kNumWords; ++n) {
    add(bytes.subspan((bytes.size() - sizeof(hash)) / kNumWords * n, sizeof(hash)));
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace c2r::cli
