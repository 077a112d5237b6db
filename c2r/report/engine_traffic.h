// Writes what an engine's backend sends today and under a plan, as lines and as JSON.
#pragma once

#include <optional>
#include <string>

#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_traffic.h"

namespace c2r {

/// @param format for kB; without it the line counts copies
/// @param tokens_per_second of all ranks together, for GB/s; nothing = no such line
/// @returns a line with the change of each kernel, such as "SGLang, DeepEP normal: 171.9 -> 167.8
///          kB a token and layer, -2.4 %; DeepEP low latency: ...", and with a format one with the
///          totals of the first kernel
std::string engine_traffic_text(const EngineTraffic& traffic,
                                const std::optional<CopyFormat>& format,
                                const std::optional<double>& tokens_per_second);

/// @returns the engine, the backend and the numbers of each kernel
Json engine_traffic_json(const EngineTraffic& traffic, const std::optional<CopyFormat>& format);

}  // namespace c2r
