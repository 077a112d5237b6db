// Reads score requests from files: sequences cut into windows, and pairs of a context and its
// continuation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "c2r/engine/requests/sequence_files.h"
#include "c2r/engine/requests/windows.h"
#include "c2r/engine/score.h"

namespace c2r {

/// A request and where its tokens come from.
struct PlacedScoreRequest {
  ScoreRequest request;
  SequencePlace place;
  std::int64_t window_idx = 0;  // among the windows of its sequence
};

/// Reads the windows of the sequences of files. Each window is scored from its second token on.
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

/// Reads the windows of the sequences of files that score each token once, see RollingWindows.
class RollingRequests {
 public:
  /// @param files,encoder must outlive this object
  /// @param max_inputs,min_context as RollingWindows()
  /// @throws as SequenceReader(), RollingWindows() and TextEncoder::first_token()
  RollingRequests(const SequenceFiles& files, TextEncoder& encoder, std::int64_t max_inputs,
                  std::int64_t min_context, const TextReader& read = read_utf8_file);

  /// @returns the next window, or nothing at the end. An empty sequence gives a request without
  ///          tokens.
  /// @throws as SequenceReader::next()
  std::optional<PlacedScoreRequest> next();

 private:
  SequenceReader sequences_;
  RollingWindows windows_;
};

/// Reads pairs {"context": ..., "continuation": ...}, which are texts or arrays of token ids, from
/// a file of JSON lines. The continuation of each pair is scored.
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

/// Makes the request of one pair, as lm-evaluation-harness does:
/// - Spaces between two texts belong to the continuation. The model is given the tokens of the
///   context, and then those tokens of both texts together that come after as many.
/// - Before an empty context stands TextEncoder::first_token(), unless the continuation begins with
///   it; then only the rest of the continuation is scored.
/// - Of a context that is too long for the model, the first tokens are left out.
/// @param place names the pair in messages
/// @returns the request
/// @throws Error(kInvalidFile) if a key is missing or unknown, or the continuation has no token or
///         is too long for the model
ScoreRequest parse_pair(const Json& pair, TextEncoder& encoder, const std::string& place);

}  // namespace c2r
