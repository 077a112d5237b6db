// Decoders of xz, gzip and zstd streams, with limits on what a hostile file makes them allocate.
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/decompress_internal.h"
#include "c2r/io/memory.h"

namespace c2r {
namespace {

using Append = std::function<void(std::span<const std::byte> part)>;

// `xz -9` needs 65 MiB. Without a limit, liblzma allocates whatever dictionary a file claims.
constexpr std::uint64_t kMaxXzMemoryBytes = 256 << 20;
constexpr int kMaxZstdWindowLog = 27;  // the window of `zstd --ultra` without --long

// A file of a few megabytes could fill the memory otherwise. Our traces shrink by up to 20 times.
constexpr std::int64_t kFreeBytes = 64 << 20, kMaxRatio = 100;

constexpr std::size_t kPartBytes = 1 << 20;

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view format,
                         std::string_view problem) {
  C2R_THROW(kInvalidFile, "{}: not a complete {} file: {}", path.string(), format, problem);
}

std::string_view xz_problem(lzma_ret status) {
  switch (status) {
    case LZMA_FORMAT_ERROR:
      return "it does not begin like one";
    case LZMA_BUF_ERROR:
      return "it is cut off";
    case LZMA_MEMLIMIT_ERROR:
      return "its dictionary needs more than 256 MiB";
    default:
      return "it is corrupt";
  }
}

// The decoder's own checks find truncation and corruption.
void decompress_xz(std::span<const std::byte> file, const std::filesystem::path& path,
                   const Append& append) {
  lzma_stream stream = LZMA_STREAM_INIT;
  C2R_REQUIRE(lzma_stream_decoder(&stream, kMaxXzMemoryBytes, LZMA_CONCATENATED) == LZMA_OK,
              kUnsupported, "{}: liblzma cannot start a decoder", path.string());
  struct End {
    lzma_stream* stream;
    ~End() { lzma_end(stream); }
  } const end{&stream};
  std::vector<std::byte> part(kPartBytes);
  stream.next_in = reinterpret_cast<const std::uint8_t*>(file.data());
  stream.avail_in = file.size();
  for (lzma_ret status = LZMA_OK; status != LZMA_STREAM_END;) {
    stream.next_out = reinterpret_cast<std::uint8_t*>(part.data());
    stream.avail_out = part.size();
    status = lzma_code(&stream, LZMA_FINISH);
    append(std::span(part).first(part.size() - stream.avail_out));
    if (status != LZMA_OK && status != LZMA_STREAM_END) refuse(path, "xz", xz_problem(status));
  }
}

void decompress_gzip(std::span<const std::byte> file, const std::filesystem::path& path,
                     const Append& append) {
  constexpr int kGzip = 16;  // added to the window: a header and a checksum of gzip, not of zlib
  z_stream stream{};
  C2R_REQUIRE(inflateInit2(&stream, MAX_WBITS + kGzip) == Z_OK, kUnsupported,
              "{}: zlib cannot start a decoder", path.string());
  struct End {
    z_stream* stream;
    ~End() { inflateEnd(stream); }
  } const end{&stream};
  std::vector<std::byte> part(kPartBytes);
  std::size_t at = 0;  // zlib counts in 32 bits, so it gets the file in parts, too
  for (int status = Z_OK; status != Z_STREAM_END || at < file.size();) {
    if (status == Z_STREAM_END) inflateReset(&stream);
    const std::size_t num_in = std::min<std::size_t>(file.size() - at, kPartBytes);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data() + at));
    stream.avail_in = static_cast<uInt>(num_in);
    stream.next_out = reinterpret_cast<Bytef*>(part.data());
    stream.avail_out = static_cast<uInt>(part.size());
    status = inflate(&stream, Z_NO_FLUSH);
    at += num_in - stream.avail_in;
    append(std::span(part).first(part.size() - stream.avail_out));
    if (status == Z_OK || status == Z_STREAM_END) continue;
    const bool is_start = stream.total_out == 0 && status == Z_DATA_ERROR;
    refuse(path, "gzip",
           status == Z_BUF_ERROR ? "it is cut off"
           : is_start            ? "it does not begin like one"
                                 : "it is corrupt");
  }
}

void decompress_zstd(std::span<const std::byte> file, const std::filesystem::path& path,
                     const Append& append) {
  const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                        ZSTD_freeDCtx);
  C2R_REQUIRE(context != nullptr, kUnsupported, "{}: libzstd cannot start a decoder",
              path.string());
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  std::vector<std::byte> part(kPartBytes);
  ZSTD_inBuffer in{file.data(), file.size(), 0};
  for (std::size_t left = 1; left != 0 || in.pos < in.size;) {
    const std::size_t before = in.pos;
    ZSTD_outBuffer out{part.data(), part.size(), 0};
    left = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left) != 0) {
      const ZSTD_ErrorCode code = ZSTD_getErrorCode(left);
      refuse(path, "zstd",
             code == ZSTD_error_prefix_unknown ? "it does not begin like one"
             : code == ZSTD_error_frameParameter_windowTooLarge
                 ? "its window needs more than 128 MiB"
                 : "it is corrupt");
    }
    append(std::span(part).first(out.pos));
    if (left != 0 && in.pos == before && out.pos == 0) refuse(path, "zstd", "it is cut off");
  }
}

struct Decompressor {
  std::string_view ending;
  void (*decompress)(std::span<const std::byte> file, const std::filesystem::path& path,
                     const Append& append);
};

constexpr Decompressor kDecompressors[] = {
    {".xz", decompress_xz}, {".gz", decompress_gzip}, {".zst", decompress_zstd}};

const Decompressor* find_decompressor(const std::filesystem::path& path) {
  const auto* const found =
      std::ranges::find(kDecompressors, path.extension().native(), &Decompressor::ending);
  return found == std::end(kDecompressors) ? nullptr : found;
}

}  // namespace

bool is_compressed(const std::filesystem::path& path) {
  return find_decompressor(path) != nullptr;
}

void decompress(std::span<const std::byte> file, const std::filesystem::path& path,
                const Append& append) {
  // While the content grows, its old and its new memory exist together.
  const std::int64_t most_memory = available_bytes().value_or(INT64_MAX) / 3;
  const std::int64_t most_ratio = kFreeBytes + kMaxRatio * std::ssize(file);
  const std::int64_t most = std::min(most_memory, most_ratio);
  std::int64_t num_bytes = 0;
  find_decompressor(path)->decompress(file, path, [&](std::span<const std::byte> part) {
    num_bytes += std::ssize(part);
    C2R_REQUIRE(num_bytes <= most, kInvalidFile, "{}: holds more than {} MB, {}", path.string(),
                most / 1'000'000,
                most_ratio < most_memory
                    ? "over 100 times its size; decompress it yourself if that is right"
                    : "for which the memory that is free does not suffice");
    append(part);
  });
}

}  // namespace c2r
