#include "c2r/cli/content_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "c2r/core/fingerprint.h"
#include "c2r/io/file.h"

namespace c2r::cli {

std::string content_hash(const std::string& path) {
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
  return fmt::format("{:016x}", hash.value());
}

}  // namespace c2r::cli
