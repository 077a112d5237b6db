// Helpers that tests of several modules share. Not installed and not part of the library.
#pragma once

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "c2r/core/error.h"

namespace c2r::testing {

/// The folder of this process's tests, removed with all it holds when the process ends.
inline const std::filesystem::path& temporary_folder() {
  struct Folder {
    std::filesystem::path path =
        std::filesystem::path(::testing::TempDir()) / ("c2r_test." + std::to_string(::getpid()));
    Folder() = default;
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

/// @returns a path in a folder that belongs to the running test alone
inline std::filesystem::path temporary_path(const std::string& name) {
  const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string folder = std::string(test->test_suite_name()) + "." + test->name();
  for (char& c : folder) c = c == '/' ? '_' : c;  // parametrised names contain slashes
  auto path = temporary_folder() / folder / name;
  std::filesystem::create_directories(path.parent_path());
  return path;
}

/// Writes `text` to a file of the running test.
/// @returns its path
inline std::filesystem::path text_file(const std::string& name, std::string_view text) {
  auto path = temporary_path(name);
  std::ofstream out(path, std::ios::binary);
  out << text;
  EXPECT_TRUE(out.flush().good()) << path;
  return path;
}

/// As temporary_path(), but removes first what an earlier run may have left in the folder.
inline std::filesystem::path path_in_empty_folder(const std::string& name) {
  auto path = temporary_path(name);
  std::filesystem::remove_all(path.parent_path());
  std::filesystem::create_directories(path.parent_path());
  return path;
}

inline std::int64_t num_files(const std::filesystem::path& folder) {
  return std::distance(std::filesystem::directory_iterator(folder), {});
}

/// @returns the message of the Error that `call` throws, or "no error"
template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// Limits a resource of this process to `limit` until it is destroyed.
class ResourceLimit {
 public:
  ResourceLimit(__rlimit_resource resource, rlim_t limit) : resource_(resource) {
    EXPECT_EQ(::getrlimit(resource_, &before_), 0);
    const rlimit lowered{.rlim_cur = limit, .rlim_max = before_.rlim_max};
    EXPECT_EQ(::setrlimit(resource_, &lowered), 0);
  }
  ResourceLimit(const ResourceLimit&) = delete;
  ResourceLimit& operator=(const ResourceLimit&) = delete;
  ~ResourceLimit() { ::setrlimit(resource_, &before_); }

 private:
  __rlimit_resource resource_;
  rlimit before_{};
};

/// Limits the number of threads that this process can start to a few until it is destroyed: their
/// stacks are large, and there is address space for four. The rest of the address space is plenty
/// for other memory. Does not work with sanitizers, which need all addresses.
class RoomForFewThreads {
 public:
  RoomForFewThreads()
      : memory_(RLIMIT_AS, address_space_now() + 4 * kStackBytes + kStackBytes / 2) {
    pthread_attr_t large;
    EXPECT_EQ(::pthread_getattr_default_np(&before_), 0);
    EXPECT_EQ(::pthread_attr_init(&large), 0);
    EXPECT_EQ(::pthread_attr_setstacksize(&large, kStackBytes), 0);
    EXPECT_EQ(::pthread_setattr_default_np(&large), 0);
    ::pthread_attr_destroy(&large);
  }
  RoomForFewThreads(const RoomForFewThreads&) = delete;
  RoomForFewThreads& operator=(const RoomForFewThreads&) = delete;
  ~RoomForFewThreads() {
    ::pthread_setattr_default_np(&before_);
    ::pthread_attr_destroy(&before_);
  }

 private:
  static constexpr std::size_t kStackBytes = std::size_t{1} << 30;

  static rlim_t address_space_now() {
    std::ifstream statm("/proc/self/statm");
    rlim_t num_pages = 0;
    statm >> num_pages;
    return num_pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
  }

  ResourceLimit memory_;
  pthread_attr_t before_{};
};

/// @returns the path of a file of the real data, for a test suite named ...OnRealData
inline std::filesystem::path real_data(const std::string& name) {
  return std::filesystem::path(C2R_DATA_DIR) / name;
}

}  // namespace c2r::testing

#if defined(__has_feature)  // clang
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define C2R_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define C2R_SANITIZED
#endif

/// Skips the test where memory cannot be limited.
#ifdef C2R_SANITIZED
#define C2R_SKIP_UNDER_SANITIZERS() GTEST_SKIP() << "sanitizers need all of the address space"
#else
#define C2R_SKIP_UNDER_SANITIZERS() static_cast<void>(0)
#endif

/// Skips the test, visibly, where the real data is absent. `make check` asserts how many do.
#define C2R_SKIP_WITHOUT(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs " << (path)
