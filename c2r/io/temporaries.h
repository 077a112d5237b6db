// The temporary files and folders of this process, so that a program that is ended by a signal can
// remove them.
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

}  // namespace c2r
