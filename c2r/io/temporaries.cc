// Lists, locks and removes temporary files and folders.
#include "c2r/io/temporaries.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <mutex>
#include <set>
#include <string_view>

namespace c2r {
namespace {

struct Temporaries {
  std::mutex mutex;
  std::set<std::filesystem::path> paths;
};

Temporaries& temporaries() {
  static Temporaries& all = *new Temporaries;  // never destroyed: threads may outlive statics
  return all;
}

// Cuts ".NUMBER" off the end of `text`. @returns whether it was there
bool cut_number(std::string_view& text) {
  const auto last = text.find_last_not_of("0123456789");
  if (last == std::string_view::npos || last + 1 == text.size() || text[last] != '.') return false;
  text = text.substr(0, last);
  return true;
}

// Whether temporary_file_path() may have made `name` for a file called `filename`.
bool is_temporary_of(std::string_view filename, std::string_view name) {
  const bool may_be_cut = name.size() == NAME_MAX;
  if (!name.starts_with('.') || !name.ends_with(".tmp")) return false;
  name.remove_suffix(4);
  for (int number = 0; number < 2; ++number) {
    if (!cut_number(name)) return false;
  }
  name.remove_prefix(1);
  return name == filename || (may_be_cut && filename.starts_with(name));
}

// Removes a file or folder of this user unless a process has locked it.
void remove_if_unlocked(const std::filesystem::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || status.st_uid != ::geteuid()) return;
  const bool is_folder = S_ISDIR(status.st_mode);
  if (!is_folder && !S_ISREG(status.st_mode)) return;
  // NFS locks only what is open for writing, which a folder cannot be.
  const int fd = ::open(path.c_str(), (is_folder ? O_RDONLY | O_DIRECTORY : O_RDWR) | O_NOFOLLOW |
                                          O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return;
  std::error_code ignored;  // the next run tries again
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) std::filesystem::remove_all(path, ignored);
  ::close(fd);
}

}  // namespace

void add_temporary(const std::filesystem::path& path, const std::function<void()>& make) {
  Temporaries& all = temporaries();
  const std::lock_guard lock(all.mutex);
  all.paths.insert(path);
  make();
}

void forget_temporary(const std::filesystem::path& path) {
  Temporaries& all = temporaries();
  const std::lock_guard lock(all.mutex);
  all.paths.erase(path);
}

void remove_temporaries() noexcept {
  Temporaries& all = temporaries();
  const std::lock_guard lock(all.mutex);
  constexpr int kAttempts = 100;  // another thread may add a file while its folder is emptied
  for (const auto& path : all.paths) {
    std::error_code ignored;  // nobody is left to tell
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      std::filesystem::remove_all(path, ignored);
      if (!std::filesystem::exists(path, ignored)) break;
    }
  }
}

bool lock_temporary(int fd) {
  // Another process holds the lock only while it removes what it takes for a leftover.
  while (::flock(fd, LOCK_EX) != 0 && errno == EINTR) {
  }
  struct stat status {};
  return ::fstat(fd, &status) == 0 && status.st_nlink > 0;
}

void remove_leftovers(const std::filesystem::path& path) noexcept {
  try {
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
    const std::string filename = path.filename().string();
    std::error_code error;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      if (is_temporary_of(filename, entry->path().filename().native())) {
        remove_if_unlocked(entry->path());
      }
    }
  } catch (const std::exception&) {  // no memory: they stay for the next run
    return;
  }
}

}  // namespace c2r
