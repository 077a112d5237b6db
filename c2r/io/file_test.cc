// Tests that files are written whole or not at all, and that broken ones are refused.
#include "c2r/io/file.h"

#include <gtest/gtest.h>
#include <lzma.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::num_files;
using testing::path_in_empty_folder;
using testing::temporary_path;

// `printf 'hello\n' | xz`.
constexpr std::string_view kHelloXz(
    "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5"
    "\xa3\x01\x00\x05\x68\x65\x6c\x6c\x6f\x0a\x00\x00\x00\xa5\x60\x97\xf1\x94\xf6\xfd\xe0\x00\x01"
    "\x1e\x06\xc1\x2f\xa4\x1d\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
    64);

// The same by `gzip -n` and `zstd`.
constexpr std::string_view kHelloGzip(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\xe7\x02\x00\x20\x30\x3a\x36\x06"
    "\x00\x00\x00",
    26);
constexpr std::string_view kHelloZstd(
    "\x28\xb5\x2f\xfd\x04\x58\x31\x00\x00\x68\x65\x6c\x6c\x6f\x0a\x53\x88\xbd\x91", 19);

// kHelloXz with a dictionary of 512 MiB.
constexpr std::string_view kHugeDictionaryXz(
    "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x22\x00\x00\x00\x82\x40\xac"
    "\xdc"
    "\x01\x00\x05\x68\x65\x6c\x6c\x6f\x0a\x00\x00\x00\xa5\x60\x97\xf1\x94\xf6\xfd\xe0\x00\x01\x1e"
    "\x06"
    "\xc1\x2f\xa4\x1d\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
    64);

TEST(PathExists, SaysWhyItCannotTell) {
  const auto path = path_in_empty_folder("file.txt");
  EXPECT_FALSE(path_exists(path));
  EXPECT_FALSE(path_exists(path / "below"));
  std::filesystem::create_symlink("file.txt", path);
  EXPECT_EQ(error_of([&] { path_exists(path); }),
            fmt::format("cannot look up '{}': Too many levels of symbolic links", path.string()));
  const std::string long_name(300, 'x');
  EXPECT_EQ(error_of([&] { path_exists(long_name); }),
            fmt::format("cannot look up '{}': File name too long", long_name));
}

TEST(FileIdentity, IsThatOfTheFileByWhateverName) {
  const auto path = path_in_empty_folder("file.txt");
  EXPECT_EQ(file_identity(path), std::nullopt);
  write_text_file(path, "text");
  const auto folder = path.parent_path();
  std::filesystem::create_symlink("file.txt", folder / "link");
  std::filesystem::create_hard_link(path, folder / "hard");
  write_text_file(folder / "copy", "text");
  ASSERT_TRUE(file_identity(path).has_value());
  for (const auto& same : {folder / "." / "file.txt", folder / "link", folder / "hard"}) {
    EXPECT_EQ(file_identity(same), file_identity(path)) << same;
  }
  EXPECT_NE(file_identity(folder / "copy"), file_identity(path));
  EXPECT_NE(file_identity(folder), file_identity(path));
}

TEST(AtomicFile, AppearsWhenCommitted) {
  const auto path = path_in_empty_folder("file.txt");
  AtomicFile file(path);
  file.write("one ");
  file.write("two");
  EXPECT_FALSE(std::filesystem::exists(path));
  file.commit();
  EXPECT_EQ(read_text_file(path), "one two");
  EXPECT_EQ(num_files(path.parent_path()), 1);
  const std::string message = fmt::format("'{}' was committed already", path.string());
  EXPECT_EQ(error_of([&] { file.write("three"); }), message);
  EXPECT_EQ(error_of([&] { file.commit(); }), message);
}

TEST(AtomicFile, LeavesNothingBehindWhenNotCommitted) {
  const auto path = path_in_empty_folder("file.txt");
  {
    AtomicFile file(path);
    file.write("half of it");
    EXPECT_EQ(num_files(path.parent_path()), 1);
  }
  EXPECT_EQ(num_files(path.parent_path()), 0);
}

TEST(AtomicFile, KeepsTheOldFileUntilTheNewOneIsComplete) {
  const auto path = temporary_path("file.txt");
  write_text_file(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
    EXPECT_EQ(read_text_file(path), "old");
  }
  EXPECT_EQ(read_text_file(path), "old");
  write_text_file(path, "new");
  EXPECT_EQ(read_text_file(path), "new");
}

TEST(AtomicFile, FollowsLinksAndKeepsTheMode) {
  const auto path = path_in_empty_folder("file.txt"), folder = path.parent_path();
  write_text_file(path, "old");
  std::filesystem::permissions(path, std::filesystem::perms(0600));
  std::filesystem::create_directory(folder / "links");
  std::filesystem::create_symlink("../file.txt", folder / "links" / "first");
  std::filesystem::create_symlink(folder / "links" / "first", folder / "second");
  write_text_file(folder / "second", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "second"));
  EXPECT_FALSE(std::filesystem::is_symlink(path));
  EXPECT_EQ(read_text_file(path), "new");
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));

  std::filesystem::create_symlink("not_there_yet", folder / "third");
  write_text_file(folder / "third", "made");
  EXPECT_EQ(read_text_file(folder / "not_there_yet"), "made");

  std::filesystem::create_symlink("loop", folder / "loop");
  EXPECT_EQ(error_of([&] { write_text_file(folder / "loop", "lost"); }),
            fmt::format("cannot write '{}': too many levels of symbolic links",
                        (folder / "loop").string()));
}

TEST(AtomicFile, TakesAnotherNameIfThatOfItsTemporaryFileIsTaken) {
  const auto path = temporary_path("file.txt");
  const auto pattern = [&](int number) {
    return path.parent_path() / fmt::format(".file.txt.{}.{}.tmp", ::getpid(), number);
  };
  int next = 0;
  {
    const AtomicFile file(path);
    while (!std::filesystem::exists(pattern(next))) ASSERT_LT(++next, 10'000);
  }
  std::filesystem::create_symlink("nowhere", pattern(next + 1));  // which is no leftover
  write_text_file(path, "hello");
  EXPECT_EQ(read_text_file(path), "hello");
  EXPECT_TRUE(std::filesystem::is_symlink(pattern(next + 1)));
}

TEST(AtomicFile, SaysWhereItCannotWrite) {
  const auto path = temporary_path("file.txt").parent_path();
  EXPECT_EQ(
      error_of([&] { AtomicFile file(path / "missing" / "file.txt"); }),
      fmt::format("cannot write '{}/missing/file.txt': No such file or directory", path.string()));
  EXPECT_EQ(error_of([&] { AtomicFile file{path}; }),
            fmt::format("cannot write '{}': it is there and not a regular file", path.string()));
  const std::string too_long(NAME_MAX + 1, 'n');
  EXPECT_EQ(error_of([&] { AtomicFile file(path / too_long); }),
            fmt::format("cannot write '{}/{}': File name too long", path.string(), too_long));
}

// The system call sees it, so that there is no signal.
TEST(AtomicFile, SaysThatAMappedInputHasBecomeShorter) {
  const auto path = path_in_empty_folder("output");
  const auto input = testing::text_file("input", std::string(100'000, 'x'));
  const MappedFile mapped(input);
  AtomicFile file(path);
  std::filesystem::resize_file(input, 0);
  EXPECT_EQ(error_of([&] { file.write(mapped.bytes()); }),
            "cannot write '" + path.string() +
                "': a mapped file that it is made from has become shorter, or its disk has failed");
}

TEST(MappedFile, KeepsItsBytesWhenMoved) {
  const auto path = temporary_path("file.txt"), empty_path = temporary_path("empty");
  write_text_file(path, "hello");
  write_text_file(empty_path, "");
  MappedFile first(path);
  const auto* const address = first.bytes().data();
  MappedFile second(std::move(first));
  EXPECT_EQ(second.bytes().data(), address);
  MappedFile third(empty_path);
  EXPECT_TRUE(third.bytes().empty());
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), address);
  EXPECT_EQ(third.bytes().size(), 5u);
}

TEST(MappedFile, RefusesWhatIsNotAFile) {
  const auto path = temporary_path("file.txt");
  EXPECT_EQ(error_of([&] { MappedFile file{path}; }),
            fmt::format("cannot open '{}': No such file or directory", path.string()));
  EXPECT_EQ(error_of([&] { MappedFile file{path.parent_path()}; }),
            fmt::format("'{}' is not a regular file", path.parent_path().string()));
}

TEST(MappedFile, DoesNotWaitForWhoWritesIntoAPipe) {
  const auto path = temporary_path("pipe");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { MappedFile file{path}; }),
            fmt::format("'{}' is not a regular file", path.string()));
}

std::string xz_of(std::string_view text) {
  std::string out(text.size() / 8 + 1024, '\0');
  std::size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, nullptr,
                                    reinterpret_cast<const std::uint8_t*>(text.data()), text.size(),
                                    reinterpret_cast<std::uint8_t*>(out.data()), &size, out.size()),
            LZMA_OK);
  out.resize(size);
  return out;
}

// A form of compression, as files of the same content.
struct Compressed {
  std::string_view ending, name;
  std::string_view hello;  // "hello\n"
  std::size_t changed_at;  // a byte of the content, which a checksum covers
};

constexpr Compressed kCompressed[] = {
    {".xz", "xz", kHelloXz, 30}, {".gz", "gzip", kHelloGzip, 12}, {".zst", "zstd", kHelloZstd, 12}};

TEST(ReadFile, DecompressesByTheEndingOfTheName) {
  for (const Compressed& form : kCompressed) {
    const auto path = temporary_path(fmt::format("file.txt{}", form.ending));
    write_text_file(path, form.hello);
    EXPECT_EQ(read_text_file(path), "hello\n") << form.name;
    EXPECT_EQ(read_file(path).size(), 6u) << form.name;
    write_text_file(path, fmt::format("{}{}", form.hello, form.hello));  // as `cat a.xz b.xz`
    EXPECT_EQ(read_text_file(path), "hello\nhello\n") << form.name;
    const auto plain = temporary_path("file.txt");
    write_text_file(plain, form.hello);
    EXPECT_EQ(read_text_file(plain), form.hello) << form.name;
    EXPECT_EQ(without_compression(path), plain);
    EXPECT_EQ(without_compression(plain), plain);
  }
}

// 80 MB of zeros in 12 kB.
TEST(ReadFile, RefusesXzThatGrowsTooMuch) {
  const auto path = temporary_path("zeros.xz");
  write_text_file(path, xz_of(std::string(80 << 20, '\0')));
  const std::string message = error_of([&] { (void)read_text_file(path); });
  EXPECT_TRUE(message.starts_with(path.string() + ": holds more than 6")) << message;
  EXPECT_TRUE(
      message.ends_with(" MB, over 100 times its size; decompress it yourself if that is right"));
  write_text_file(path, xz_of(std::string(60 << 20, '\0')));
  EXPECT_EQ(read_text_file(path).size(), 60U << 20);
}

std::string error_of_reading(const std::filesystem::path& path, std::string_view content) {
  write_text_file(path, content);
  const std::string message = error_of([&] { (void)read_file(path); });
  return message.starts_with(path.string()) ? message.substr(path.string().size()) : message;
}

TEST(ReadFile, NoticesEveryTruncationOfACompressedFile) {
  for (const Compressed& form : kCompressed) {
    const auto path = temporary_path(fmt::format("file.txt{}", form.ending));
    for (std::size_t size = 0; size < form.hello.size(); ++size) {
      EXPECT_EQ(error_of_reading(path, form.hello.substr(0, size)),
                fmt::format(": not a complete {} file: it is cut off", form.name))
          << size << " bytes";
    }
  }
}

TEST(ReadFile, NoticesABrokenCompressedFile) {
  for (const Compressed& form : kCompressed) {
    const auto path = temporary_path(fmt::format("file.txt{}", form.ending));
    std::string broken(form.hello);
    broken[form.changed_at] = static_cast<char>(broken[form.changed_at] ^ 1);
    EXPECT_EQ(error_of_reading(path, broken),
              fmt::format(": not a complete {} file: it is corrupt", form.name));
    EXPECT_EQ(error_of_reading(path, "hello, this is not compressed\n"),
              fmt::format(": not a complete {} file: it does not begin like one", form.name));
  }
}

// A frame of zstd whose header claims a window of 256 MiB.
TEST(ReadFile, RefusesWindowsThatNeedTooMuchMemory) {
  const auto path = temporary_path("file.zst");
  constexpr std::string_view kHuge("\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00", 9);
  EXPECT_EQ(error_of_reading(path, kHuge),
            ": not a complete zstd file: its window needs more than 128 MiB");
}

TEST(ReadFile, RefusesDictionariesThatNeedTooMuchMemory) {
  const auto path = testing::text_file("text.xz", kHugeDictionaryXz);
  EXPECT_TRUE(error_of([&] {
                (void)read_file(path);
              }).ends_with("not a complete xz file: its dictionary needs more than 256 MiB"));
}

TEST(AtomicFile, MayHaveTheLongestName) {
  const auto path = temporary_path(std::string(NAME_MAX, 'n'));
  write_text_file(path, "text");
  EXPECT_EQ(read_text_file(path), "text");
}

}  // namespace
}  // namespace c2r
