// The metadata that traces and statistics files share.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "c2r/io/safetensors.h"
#include "c2r/routing/trace.h"

namespace c2r {

/// The `__metadata__` of a file of this `format` ("c2r.trace", "c2r.statistics").
std::map<std::string, std::string> trace_metadata(const TraceHeader& header,
                                                  std::string_view format);

/// Reads it back. @param what the format in words, for the message: "a routing trace"
/// @throws Error(kInvalidFile) if it is another format or version, or a value is not valid
TraceHeader read_trace_metadata(const SafetensorsFile& file, std::string_view format,
                                std::string_view what);

}  // namespace c2r
