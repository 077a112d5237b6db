// A file descriptor for reading that is closed at the end of its scope.
#pragma once

#include <fcntl.h>
#include <unistd.h>

namespace c2r {

struct FileDescriptor {
  /// Leaves `fd` at -1 and errno set if the file cannot be opened. Opening a pipe does not wait for
  /// its writer.
  explicit FileDescriptor(const char* path) : fd(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
  const int fd;
};

}  // namespace c2r
