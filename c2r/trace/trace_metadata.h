// The metadata that traces and statistics files share.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "c2r/io/safetensors.h"
#include "c2r/trace/trace.h"

namespace c2r {

inline constexpr std::string_view kTraceFormat = "c2r.trace", kStatisticsFormat = "c2r.statistics";

/// The version of statistics and of most traces, and that of a trace that has logits, which
/// programs that do not know them refuse.
inline constexpr std::string_view kFirstVersion = "1", kTraceVersionWithLogits = "2";

/// @param format kTraceFormat or kStatisticsFormat
/// @returns the `__metadata__` of such a file
std::map<std::string, std::string> trace_metadata(const TraceHeader& header,
                                                  std::string_view format,
                                                  std::string_view version = kFirstVersion);

/// Reads the header out of the metadata of a file.
/// @param format the one that the file must have
/// @param what the format in words, for the message: "a routing trace"
/// @throws Error(kInvalidFile) if it is another format or version, or a value is not valid
TraceHeader read_trace_metadata(const SafetensorsFile& file, std::string_view format,
                                std::string_view what);

}  // namespace c2r
