// Temporary files and folders: those of this process, so that a program that is ended by a signal
// can remove them, and those that killed processes have left, which AtomicFile removes when it
// writes to the same path.
#pragma once

#include <filesystem>
#include <functional>

namespace c2r {

/// Calls `make`, which makes the file or folder `path` of temporary_file_path(), and enters the
/// path, so that remove_temporaries() finds whatever was made. forget_temporary() removes the path
/// from the list once it was renamed or deleted, or if `make` has failed. Threads may call both.
/// The list is the one state that all users of the library in a process share.
void add_temporary(const std::filesystem::path& path, const std::function<void()>& make);
void forget_temporary(const std::filesystem::path& path);

/// Deletes what add_temporary() has entered, folders with all that is in them. To be called right
/// before the process ends, since others may still write there; not in a signal handler, since it
/// allocates.
void remove_temporaries() noexcept;

/// Locks a temporary file or folder that this process has just made, so that remove_leftovers()
/// knows that it is in use. The lock ends when `fd` is closed, also by the end of the process.
/// Where a file system has no locks, nothing is locked.
/// @returns false if another process has taken it for a leftover and removed it before it was
///          locked; make another one
[[nodiscard]] bool lock_temporary(int fd);

/// Removes what killed processes have left when they wrote to `path`: what has a name of
/// temporary_file_path(path), belongs to this user and is not locked, folders with all that is in
/// them. Removes nothing that cannot be locked, such as folders on NFS.
/// Cost: reads the names in the folder of `path`.
void remove_leftovers(const std::filesystem::path& path) noexcept;

}  // namespace c2r
