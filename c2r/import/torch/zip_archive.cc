// Parses the directory at the end of a zip archive and the header in front of each entry.
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/torch/zip_archive_internal.h"

namespace c2r::torch {
namespace {

using ZipBytes = std::span<const std::byte>;

constexpr std::uint32_t kLocalHeader = 0x04034b50, kDirectoryEntry = 0x02014b50,
                        kDirectoryEnd = 0x06054b50, kDirectoryEnd64 = 0x06064b50,
                        kLocatorOfEnd64 = 0x07064b50;
constexpr std::uint64_t kLocalHeaderBytes = 30, kDirectoryEntryBytes = 46, kDirectoryEndBytes = 22,
                        kLocatorBytes = 20, kMaxCommentBytes = 0xffff;
constexpr std::uint64_t kIn64Bits = 0xffffffff;  // the value is in the extra field of zip64
constexpr std::uint64_t kZip64Field = 1;
constexpr std::uint64_t kDeflated = 8;  // the method of compression

// Where the directory is, and how many entries it has.
struct Directory {
  std::uint64_t begin = 0, bytes = 0, num_entries = 0;
};

// An entry as the directory describes it.
struct DirectoryEntry {
  std::string_view name;
  std::uint64_t bytes = 0, stored_bytes = 0, header_at = 0;
  bool is_deflated = false;
};

// A part of the archive that an entry's bytes take.
struct EntryRange {
  std::uint64_t begin = 0, end = 0;
  std::string_view name;
};

class ZipParser {
 public:
  ZipParser(ZipBytes archive, std::string_view place, ZipCompression allowed)
      : archive_(archive), place_(place), allowed_(allowed) {}

  std::map<std::string_view, ZipEntry> parse() const {
    const Directory directory = find_directory();
    std::map<std::string_view, ZipEntry> entries;
    std::vector<EntryRange> ranges;
    std::uint64_t at = directory.begin;
    const std::uint64_t end = directory.begin + directory.bytes;
    for (std::uint64_t i = 0; i < directory.num_entries; ++i) {
      const DirectoryEntry entry = read_entry(at, end);
      const std::uint64_t begin = begin_of(entry);
      C2R_REQUIRE(entry.stored_bytes <= directory.begin - std::min(begin, directory.begin),
                  kInvalidFile,
                  "{}: the entry '{}' of {} bytes at {} reaches into the archive's directory",
                  place_, shown(entry.name), entry.stored_bytes, begin);
      const ZipEntry in_archive{archive_.subspan(begin, entry.stored_bytes), entry.bytes,
                                entry.is_deflated};
      const bool is_new = entries.emplace(entry.name, in_archive).second;
      C2R_REQUIRE(is_new, kInvalidFile, "{}: has the entry '{}' twice", place_, shown(entry.name));
      ranges.push_back({begin, begin + entry.stored_bytes, entry.name});
    }
    require_apart(std::move(ranges));
    return entries;
  }

 private:
  // `num_bytes` from `at` as a number; everything that is read from the archive passes here.
  std::uint64_t number(std::uint64_t at, std::uint64_t num_bytes) const {
    C2R_REQUIRE(at <= archive_.size() && num_bytes <= archive_.size() - at, kInvalidFile,
                "{}: is not a complete zip archive: it refers to byte {}, but has {} bytes", place_,
                at, archive_.size());
    std::uint64_t value = 0;
    for (std::uint64_t i = num_bytes; i > 0; --i) {
      value = value << 8 | std::to_integer<std::uint64_t>(archive_[at + i - 1]);
    }
    return value;
  }

  void require_signature(std::uint64_t at, std::uint32_t signature, std::string_view what) const {
    C2R_REQUIRE(number(at, 4) == signature, kInvalidFile,
                "{}: is not a complete zip archive: there is no {} at byte {}", place_, what, at);
  }

  // The record at the end of the archive, which a comment may follow.
  std::uint64_t end_record() const {
    for (std::uint64_t comment = 0; comment <= kMaxCommentBytes; ++comment) {
      if (kDirectoryEndBytes + comment > archive_.size()) break;
      const std::uint64_t at = archive_.size() - kDirectoryEndBytes - comment;
      if (number(at, 4) == kDirectoryEnd && number(at + 20, 2) == comment) return at;
    }
    C2R_THROW(kInvalidFile,
              "{}: is not a complete zip archive: it does not end in a directory; was it cut off?",
              place_);
  }

  Directory find_directory() const {
    const std::uint64_t end = end_record();
    Directory directory{number(end + 16, 4), number(end + 12, 4), number(end + 10, 2)};
    if (end >= kLocatorBytes && number(end - kLocatorBytes, 4) == kLocatorOfEnd64) {
      const std::uint64_t end64 = number(end - kLocatorBytes + 8, 8);
      require_signature(end64, kDirectoryEnd64, "end of a zip64 directory");
      directory = {number(end64 + 48, 8), number(end64 + 40, 8), number(end64 + 32, 8)};
    }
    C2R_REQUIRE(directory.begin <= end && directory.bytes <= end - directory.begin &&
                    directory.num_entries <= directory.bytes / kDirectoryEntryBytes,
                kInvalidFile,
                "{}: is not a complete zip archive: its directory of {} entries and {} bytes at {} "
                "does not fit into its {} bytes",
                place_, directory.num_entries, directory.bytes, directory.begin, archive_.size());
    return directory;
  }

  std::string_view text(std::uint64_t at, std::uint64_t num_bytes) const {
    return {reinterpret_cast<const char*>(archive_.data()) + at, num_bytes};
  }

  // Reads the entry of the directory at `at` and moves `at` to the next.
  DirectoryEntry read_entry(std::uint64_t& at, std::uint64_t end) const {
    C2R_REQUIRE(end - at >= kDirectoryEntryBytes, kInvalidFile,
                "{}: the archive's directory is cut off at byte {}", place_, at);
    require_signature(at, kDirectoryEntry, "entry of the directory");
    const std::uint64_t name_bytes = number(at + 28, 2), extra_bytes = number(at + 30, 2),
                        comment_bytes = number(at + 32, 2);
    const std::uint64_t total = kDirectoryEntryBytes + name_bytes + extra_bytes + comment_bytes;
    C2R_REQUIRE(total <= end - at, kInvalidFile,
                "{}: the archive's directory is cut off at byte {}", place_, at);
    DirectoryEntry entry{.name = text(at + kDirectoryEntryBytes, name_bytes),
                         .bytes = number(at + 24, 4),
                         .stored_bytes = number(at + 20, 4),
                         .header_at = number(at + 42, 4)};
    read_zip64(at + kDirectoryEntryBytes + name_bytes, extra_bytes, entry);
    C2R_REQUIRE((number(at + 8, 2) & 1) == 0, kUnsupported, "{}: the entry '{}' is encrypted",
                place_, shown(entry.name));
    const std::uint64_t method = number(at + 10, 2);
    entry.is_deflated = method == kDeflated;
    C2R_REQUIRE((method == 0 && entry.stored_bytes == entry.bytes) ||
                    (entry.is_deflated && allowed_ == ZipCompression::kDeflate),
                kUnsupported,
                "{}: the entry '{}' is compressed, but {}; was the archive packed anew?", place_,
                shown(entry.name),
                allowed_ == ZipCompression::kNone ? "torch.save() stores entries as they are"
                                                  : "not by deflate as numpy does");
    at += total;
    return entry;
  }

  // The extra field of zip64 has the values that do not fit into 32 bits, in this order.
  void read_zip64(std::uint64_t at, std::uint64_t extra_bytes, DirectoryEntry& entry) const {
    for (const std::uint64_t end = at + extra_bytes; end - at >= 4;) {
      const std::uint64_t id = number(at, 2);
      const std::uint64_t field_bytes = std::min(number(at + 2, 2), end - at - 4);
      at += 4;
      if (id == kZip64Field) {
        std::uint64_t field = at;
        for (std::uint64_t* value : {&entry.bytes, &entry.stored_bytes, &entry.header_at}) {
          if (*value != kIn64Bits || at + field_bytes - field < 8) continue;
          *value = number(field, 8);
          field += 8;
        }
      }
      at += field_bytes;
    }
  }

  // Where the entry's bytes begin: after its header, which repeats the name.
  std::uint64_t begin_of(const DirectoryEntry& entry) const {
    const std::uint64_t at = entry.header_at;
    require_signature(at, kLocalHeader, "header of an entry");
    const std::uint64_t name_bytes = number(at + 26, 2), extra_bytes = number(at + 28, 2);
    (void)number(at + kLocalHeaderBytes + name_bytes + extra_bytes, 0);
    C2R_REQUIRE(text(at + kLocalHeaderBytes, name_bytes) == entry.name, kInvalidFile,
                "{}: the directory calls the entry at byte {} '{}', but its header does not",
                place_, at, shown(entry.name));
    return at + kLocalHeaderBytes + name_bytes + extra_bytes;
  }

  void require_apart(std::vector<EntryRange> ranges) const {
    std::ranges::sort(ranges, {}, &EntryRange::begin);
    const auto overlap = std::ranges::adjacent_find(
        ranges, [](const EntryRange& a, const EntryRange& b) { return a.end > b.begin; });
    if (overlap == ranges.end()) return;
    C2R_THROW(kInvalidFile, "{}: the entries '{}' and '{}' overlap", place_, shown(overlap->name),
              shown(std::next(overlap)->name));
  }

  ZipBytes archive_;
  std::string_view place_;
  ZipCompression allowed_;
};

// A small entry could claim to be huge otherwise.
constexpr std::uint64_t kFreeEntryBytes = 64 << 20, kMaxEntryRatio = 100;

}  // namespace

ZipArchive::ZipArchive(std::span<const std::byte> archive, std::string_view place,
                       ZipCompression allowed)
    : entries_(ZipParser(archive, place, allowed).parse()) {}

std::vector<std::byte> content_of(const ZipEntry& entry, std::string_view place) {
  if (!entry.is_deflated) return {entry.stored.begin(), entry.stored.end()};
  C2R_REQUIRE(entry.num_bytes <= kFreeEntryBytes + kMaxEntryRatio * entry.stored.size(),
              kInvalidFile, "{}: claims to hold {} bytes, over 100 times its size", place,
              entry.num_bytes);
  C2R_REQUIRE(entry.num_bytes <= UINT32_MAX && entry.stored.size() <= UINT32_MAX, kUnsupported,
              "{}: has {} bytes, but compressed arrays may have at most 2^32 - 1; save it with "
              "numpy.savez()",
              place, entry.num_bytes);
  std::vector<std::byte> content(entry.num_bytes);
  z_stream stream{};
  C2R_REQUIRE(inflateInit2(&stream, -MAX_WBITS) == Z_OK, kUnsupported,
              "{}: zlib cannot start a decoder", place);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(entry.stored.data()));
  stream.avail_in = static_cast<uInt>(entry.stored.size());
  std::byte beyond{};  // zlib wants a place for the output even if there is none
  stream.next_out = reinterpret_cast<Bytef*>(content.empty() ? &beyond : content.data());
  stream.avail_out = static_cast<uInt>(content.size());
  const int status = inflate(&stream, Z_FINISH);
  const std::uint64_t num_bytes = stream.total_out;
  inflateEnd(&stream);
  C2R_REQUIRE(status == Z_STREAM_END && num_bytes == entry.num_bytes, kInvalidFile,
              "{}: what is compressed is broken, or not the {} bytes that the archive says", place,
              entry.num_bytes);
  return content;
}

}  // namespace c2r::torch
