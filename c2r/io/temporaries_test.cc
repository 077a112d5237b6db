// Tests that temporary files and folders are removed: by a process that ends, and by the next one.
#include "c2r/io/temporaries.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <csignal>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using testing::num_files;
using testing::path_in_empty_folder;

TEST(Temporaries, AreRemovedWithAllThatIsInThem) {
  const auto folder = path_in_empty_folder("x").parent_path();
  const auto temporary = temporary_file_path(folder / "model");
  add_temporary(temporary, [&] { std::filesystem::create_directory(temporary); });
  AtomicFile inside(temporary / "shard"), beside(folder / "file"), done(folder / "done");
  done.commit();
  EXPECT_EQ(num_files(folder), 3);
  remove_temporaries();
  EXPECT_EQ(num_files(folder), 1);
  forget_temporary(temporary);
}

TEST(Leftovers, OfAKilledProcessAreRemovedByTheNextThatWrites) {
  const auto path = path_in_empty_folder("plan.json");
  const pid_t child = ::fork();
  if (child == 0) {
    const AtomicFile file(path);
    ::raise(SIGKILL);
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ASSERT_EQ(num_files(path.parent_path()), 1);
  write_text_file(path, "text");
  EXPECT_EQ(num_files(path.parent_path()), 1);
  EXPECT_EQ(read_text_file(path), "text");
}

TEST(Leftovers, AreFoldersWithAllThatIsInThem) {
  const auto path = path_in_empty_folder("model");
  std::filesystem::create_directories(path.parent_path() / ".model.1.1.tmp" / "folder");
  write_text_file(path.parent_path() / ".model.1.1.tmp" / "folder" / "shard", "text");
  remove_leftovers(path);
  EXPECT_EQ(num_files(path.parent_path()), 0);
}

TEST(Leftovers, AreNotWhatIsStillInUse) {
  const auto path = path_in_empty_folder("plan.json");
  AtomicFile first(path);
  first.write("first");
  AtomicFile second(path);
  EXPECT_EQ(num_files(path.parent_path()), 2);
  second.write("second");
  second.commit();
  first.commit();
  EXPECT_EQ(read_text_file(path), "first");

  const auto folder = path.parent_path() / ".model.1.1.tmp";
  std::filesystem::create_directory(folder);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  EXPECT_TRUE(lock_temporary(fd));
  remove_leftovers(path.parent_path() / "model");
  EXPECT_TRUE(std::filesystem::exists(folder));
  ::close(fd);
  remove_leftovers(path.parent_path() / "model");
  EXPECT_FALSE(std::filesystem::exists(folder));
}

// What was removed between making and locking must be made again.
TEST(Leftovers, ThatWereRemovedCannotBeLocked) {
  const auto path = path_in_empty_folder(".plan.json.1.1.tmp");
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT, 0666);
  remove_leftovers(path.parent_path() / "plan.json");
  EXPECT_FALSE(lock_temporary(fd));
  ::close(fd);
}

TEST(Leftovers, AreNotFilesOfOtherNames) {
  const auto path = path_in_empty_folder("plan");
  const auto folder = path.parent_path();
  const std::vector<std::string> others = {
      "plan.1.1.tmp",    ".plan.1.tmp",   ".plan.1.1.tmp.", ".plan.1..tmp", ".plan.json.1.1.tmp",
      ".plan.1.2.3.tmp", ".plan.a.1.tmp", ".pla.1.1.tmp",   ".plan.1.1",    "..tmp"};
  for (const std::string& name : others) write_text_file(folder / name, "text");
  std::filesystem::create_symlink("plan.1.1.tmp", folder / ".plan.7.7.tmp");
  remove_leftovers(path);
  EXPECT_EQ(num_files(folder), std::ssize(others) + 1);
  write_text_file(folder / ".plan.12.345.tmp", "text");
  remove_leftovers(path);
  EXPECT_EQ(num_files(folder), std::ssize(others) + 1);
}

TEST(Leftovers, MayHaveTheLongestName) {
  const auto path = path_in_empty_folder(std::string(NAME_MAX, 'n'));
  write_text_file(temporary_file_path(path), "text");
  EXPECT_EQ(num_files(path.parent_path()), 1);
  write_text_file(path, "text");
  EXPECT_EQ(num_files(path.parent_path()), 1);
}

}  // namespace
}  // namespace c2r
