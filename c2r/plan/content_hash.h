// Hashes of traces and token sets, which recognize the tokens of a plan after a renaming.
#pragma once

#include <string>

#include "c2r/plan/routed_tokens.h"

namespace c2r {

/// The hash of a file depends on its size, its beginning and end, and on words in between: this
/// tells recordings apart, but does not notice every damaged byte. The hash of a trace in memory
/// depends on every choice and differs from that of a file with the same choices.
/// @returns the hash of a trace, 16 hexadecimal digits
/// @throws Error(kInvalidFile) if the file cannot be read any more
/// Cost: of a file, reads at most 2 MiB and 4096 pages; in memory, one pass.
std::string content_hash(const Trace& trace);

/// @returns a hash of all sets and their multiplicities, 16 hexadecimal digits
std::string content_hash(const ModelTokenSets& sets);

}  // namespace c2r
