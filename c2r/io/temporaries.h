// The temporary files and folders of this process, so that a program that is ended by a signal can
// remove them.
#pragma once

#include <filesystem>

namespace c2r {

/// Enters a path of temporary_beside() before it is made, and removes it from the list once it was
/// renamed or deleted. Threads may call both. These lists are the one state that all users of the
/// library in a process share.
void add_temporary(const std::filesystem::path& path);
void forget_temporary(const std::filesystem::path& path);

/// Deletes what add_temporary() has entered, folders with all that is in them. To be called right
/// before the process ends, since others may still write there; not in a signal handler, since it
/// allocates.
void remove_temporaries() noexcept;

}  // namespace c2r
