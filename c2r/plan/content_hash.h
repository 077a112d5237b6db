// Hashes by which a plan knows the tokens that it was fitted on under another name.
#pragma once

#include <string>

#include "c2r/plan/routed_tokens.h"

namespace c2r {

/// A hash of a trace. Of a file it depends on the size, the beginning and the end, and on words in
/// between: two recordings differ there, but not every damaged byte is noticed. Of a trace in
/// memory it depends on every choice; it is not the hash of a file with the same choices.
/// @returns 16 hexadecimal digits
/// @throws Error(kInvalidFile) if the file cannot be read any more
/// Cost: of a file, reads at most 2 MiB and 4096 pages; in memory, one pass.
std::string content_hash(const Trace& trace);

/// A hash of every set and its multiplicity.
/// @returns 16 hexadecimal digits
std::string content_hash(const ModelTokenSets& sets);

}  // namespace c2r
