// What `c2r inspect` says of a file or folder that is no model.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "c2r/io/json.h"

namespace c2r::cli {

/// What a file is, and facts of its content.
struct FileDescription {
  std::string what;             // "a routing trace"
  Json facts = Json::object();  // in the order in which they are shown
  std::vector<std::string> notes =
      {};  // sentences: what to do with the file, what to be careful about
};

/// Describes a file of c2r (a trace, statistics, a plan, a page of a report, a cluster or hardware,
/// what a command printed with --json), or says which import format a file of another program has.
/// @returns nothing if the path is a folder that may be a model, or does not exist
/// @throws Error(kInvalidFile) if the file is broken
std::optional<FileDescription> describe_file(const std::string& path);

/// @returns lines of the description, the facts aligned
std::string description_text(const std::string& path, const FileDescription& description);

/// @returns {"path", "what", the facts, "notes"}
Json description_json(const std::string& path, const FileDescription& description);

}  // namespace c2r::cli
