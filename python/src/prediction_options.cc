// Makes the requests of the library from the options that several functions take.
#include "python/src/prediction_options.h"

#include <string>
#include <string_view>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/import.h"
#include "c2r/placement/hardware.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/time_request.h"

namespace c2r::python {
namespace {

bool parse_is_fp8(std::string_view type) {
  C2R_REQUIRE(type == "bf16" || type == "fp8", kInvalidArgument, "a type is bf16 or fp8; not '{}'",
              shown(type));
  return type == "fp8";
}

TimeRequest time_request(const nb::dict& options) {
  TimeRequest request;
  take(options, "hidden", request.hidden);
  take(options, "intermediate", request.intermediate);
  take(options, "wire_width", request.wire_width);
  take(options, "batch_tokens", request.batch_tokens);
  take_name(options, "dispatch_type", parse_is_fp8, request.has_fp8_dispatch);
  take_name(options, "weight_type", parse_is_fp8, request.has_fp8_weights);
  take_name(options, "overlap", parse_overlap, request.overlap);
  return request;
}

}  // namespace

std::optional<EngineBackend> engine_of(const nb::dict& options) {
  std::string engine, backend;
  take(options, "engine", engine);
  take(options, "backend", backend);
  if (engine.empty()) return std::nullopt;
  EngineBackend use = find_engine_backend(engine, backend);
  std::optional<Phase> phase;
  take_name(options, "phase", parse_phase, phase);
  use.decodes = phase == Phase::kDecode;
  return use;
}

Cluster on_hardware(const Cluster& cluster, const nb::dict& options) {
  std::string hardware;
  take(options, "hardware", hardware);
  return hardware.empty() ? cluster : with_hardware(cluster, read_hardware(hardware));
}

PredictRequest predict_request(const Cluster& cluster, const nb::dict& options) {
  PredictRequest request{.traffic = default_traffic(cluster),
                         .layer_time = layer_time_of(time_request(options), cluster)};
  if (const auto engine = engine_of(options)) {
    C2R_REQUIRE(!options.contains("copy_mode") || options["copy_mode"].is_none(), kInvalidArgument,
                "copy_mode and engine both say how copies are sent: give one of them");
    request = for_engine(*engine, std::move(request));
  }
  take_name(options, "copy_mode", parse_copy_mode, request.traffic.copy_mode);
  take_name(options, "replica_rule", parse_replica_rule, request.traffic.replica_rule);
  take_name(options, "homes", parse_homes, request.traffic.homes);
  take(options, "seed", request.traffic.seed);
  return request;
}

std::optional<CopyFormat> copy_format(const nb::dict& options) {
  return copy_format_of(time_request(options));
}

Counting counting(const nb::dict& options) {
  Counting how;
  take_name(options, "on", parse_sequence_part, how.on);
  int num_threads = 0;
  take(options, "num_threads", num_threads);
  how.num_threads = threads_of(num_threads);
  return how;
}

}  // namespace c2r::python
