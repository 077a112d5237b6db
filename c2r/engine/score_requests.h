// Score requests from files: sequences cut into windows, and pairs of a context and its
// continuation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "c2r/engine/score.h"
#include "c2r/engine/sequence_files.h"
#include "c2r/engine/windows.h"

namespace c2r {

/// A request and where its tokens come from.
struct PlacedScoreRequest {
  ScoreRequest request;
  SequencePlace place;
  std::int64_t window_idx = 0;  // among the windows of its sequence
};

/// The windows of the sequences of files, each scored from its second token on.
class WindowRequests {
 public:
  /// @param files,encoder must outlive this object
  /// @throws as SequenceReader() and Windows()
  WindowRequests(const SequenceFiles& files, TextEncoder& encoder, std::int64_t window,
                 const TextReader& read = read_utf8_file);

  /// @returns the next window, or nothing at the end. An empty sequence gives a request without
  ///          tokens.
  /// @throws as SequenceReader::next()
  std::optional<PlacedScoreRequest> next();

 private:
  SequenceReader sequences_;
  Windows windows_;
};

/// The continuations of {"context": ..., "continuation": ...} in a file of JSON lines, texts or
/// arrays of token ids.
class PairRequests {
 public:
  /// @param encoder must outlive this object
  /// @throws what `read` throws
  PairRequests(const std::string& path, TextEncoder& encoder,
               const TextReader& read = read_utf8_file);

  /// @returns the next pair, or nothing at the end
  /// @throws Error(kInvalidFile), naming the line
  std::optional<PlacedScoreRequest> next();

 private:
  std::string path_;
  TextEncoder& encoder_;
  JsonLines lines_;
};

/// The request of one pair. Spaces between two texts belong to the continuation, as in
/// lm-evaluation-harness: tokens begin with their space.
/// @param place of the pair, for messages
/// @throws Error(kInvalidFile) if a key is missing or unknown, or one of the two has no token
ScoreRequest parse_pair(const Json& pair, TextEncoder& encoder, const std::string& place);

}  // namespace c2r
