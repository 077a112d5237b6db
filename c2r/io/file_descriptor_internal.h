// A file opened for reading, which is closed at the end of the scope.
#pragma once

#include <fcntl.h>
#include <unistd.h>

namespace c2r {

struct FileDescriptor {
  /// Leaves `fd` at -1, and errno set, if the file cannot be opened. Does not wait for who writes
  /// into a pipe.
  explicit FileDescriptor(const char* path) : fd(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
  const int fd;
};

}  // namespace c2r
