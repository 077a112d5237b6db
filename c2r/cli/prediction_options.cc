// The options of the commands that predict, and the request that they make.
#include "c2r/cli/prediction_options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "c2r/cli/app.h"
#include "c2r/cli/completion.h"
#include "c2r/core/error.h"
#include "c2r/placement/hardware.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/time_request.h"

namespace c2r::cli {

namespace {

TimeRequest time_request_of(const PredictionOptions& options) {
  TimeRequest request{.hidden = options.hidden,
                      .intermediate = options.intermediate,
                      .wire_width = options.wire_width,
                      .has_fp8_dispatch = options.dispatch_type == "fp8",
                      .has_fp8_weights = options.weight_type == "fp8",
                      .overlap = parse_overlap(options.overlap)};
  if (options.batch_tokens > 0) request.batch_tokens = options.batch_tokens;
  return request;
}

// The times that the options ask for; nothing without --intermediate.
std::optional<LayerTimeOptions> layer_time_of_options(const PredictionOptions& options,
                                                      const Cluster& cluster) {
  (void)parse_overlap(options.overlap);  // a wrong name is always an error
  C2R_REQUIRE(options.intermediate > 0 || options.batch_tokens == 0, kInvalidArgument,
              "--batch-tokens is for predicted times, which need --hidden and --intermediate");
  if (options.intermediate == 0) return std::nullopt;
  C2R_REQUIRE(options.hidden > 0, kInvalidArgument, "--intermediate needs --hidden");
  C2R_REQUIRE(cluster.device_flop_per_s.has_value(), kInvalidArgument,
              "--intermediate asks for predicted times, but the cluster has no device_flop_per_s; "
              "give --hardware, or --cluster a JSON file with it");
  return layer_time_of(time_request_of(options), cluster);
}

}  // namespace

PredictRequest request_of(const PredictionOptions& options, const Cluster& cluster) {
  PredictRequest request{
      .traffic = {.cluster = cluster,
                  .copy_mode = options.copy_mode.empty() ? default_copy_mode(cluster)
                                                         : parse_copy_mode(options.copy_mode),
                  .seed = options.seed,
                  .homes = parse_homes(options.homes)},
      .layer_time = layer_time_of_options(options, cluster)};
  if (const auto engine = engine_of(options)) {
    C2R_REQUIRE(options.copy_mode.empty(), kInvalidArgument,
                "--copy-mode and --engine both say how copies are sent: give one of them");
    request = for_engine(*engine, std::move(request));
  }
  if (!options.rule.empty()) request.traffic.replica_rule = parse_replica_rule(options.rule);
  C2R_REQUIRE(!options.tokens_per_second || (!options.engine.empty() && options.hidden > 0),
              kInvalidArgument, "--tokens-per-second needs --engine and --hidden");
  return request;
}

void add_engine_options(CLI::App& command, std::string& engine, std::string& backend) {
  std::vector<std::string> names, backends;
  for (const EngineRow& row : engines()) {
    if (!row.backends.empty()) names.emplace_back(row.name);
    for (const Backend& one : row.backends) backends.emplace_back(one.name);
  }
  std::ranges::sort(backends);  // some engines name theirs alike
  backends.erase(std::unique(backends.begin(), backends.end()), backends.end());
  auto* const option =
      command
          .add_option("--engine", engine,
                      fmt::format("the engine that runs the model: {}. Copies are counted as its "
                                  "backend sends them, and compared with what it sends today",
                                  fmt::join(names, ", ")))
          ->check(offered(names))
          ->type_name("NAME");
  command
      .add_option("--backend", backend,
                  "the all-to-all backend of the engine, such as deepep; default is the engine's")
      ->needs(option)
      ->check(offered(backends))
      ->type_name("NAME");
}

void add_phase_option(CLI::App& command, std::string& phase) {
  command
      .add_option("--phase", phase,
                  "with --engine: the kernel of the backend that tables and times are about, that "
                  "for prefill or that for decode")
      ->check(one_of({"prefill", "decode"}))
      ->capture_default_str()
      ->type_name("PHASE");
}

std::optional<EngineBackend> engine_of(const std::string& engine, const std::string& backend,
                                       const std::string& phase) {
  if (engine.empty()) return std::nullopt;
  EngineBackend use = find_engine_backend(engine, backend);
  use.decodes = phase == "decode";
  return use;
}

std::optional<EngineBackend> engine_of(const PredictionOptions& options) {
  return engine_of(options.engine, options.backend, options.phase);
}

void add_batch_tokens_option(CLI::App& command, std::int64_t& batch_tokens) {
  command
      .add_option(
          "--batch-tokens", batch_tokens,
          "for times: the tokens of one batch on all ranks together; default is all counted "
          "tokens")
      ->check(in_range(1, INT64_C(1) << 40))
      ->type_name("N");
}

void add_hardware_option(CLI::App& command, std::string& hardware) {
  std::vector<std::string> names;
  for (const NamedHardware& known : known_hardware()) names.emplace_back(known.name);
  command
      .add_option(
          "--hardware", hardware,
          fmt::format("the links and rates of the cluster by name: {}; or a JSON file, such "
                      "as c2r bench exchange --hardware-out writes",
                      fmt::join(names, ", ")))
      ->check(offered(names))
      ->type_name("NAME");
}

Cluster on_hardware(const Cluster& cluster, const std::string& hardware) {
  return hardware.empty() ? cluster : with_hardware(cluster, read_hardware(hardware));
}

std::optional<CopyFormat> format_of(const PredictionOptions& options) {
  C2R_REQUIRE(options.hidden > 0 || (options.wire_width == 0 && options.dispatch_type == "bf16"),
              kInvalidArgument, "--wire-width and --dispatch-type need --hidden");
  return copy_format_of(time_request_of(options));
}

namespace {

void add_prediction_time_options(CLI::App& command, PredictionOptions& options) {
  add_hardware_option(command, options.hardware);
  add_batch_tokens_option(command, options.batch_tokens);
  add_phase_option(command, options.phase);
  command
      .add_option(
          "--dispatch-type", options.dispatch_type,
          "the type of copies in dispatch: bf16, or fp8 with a scale of 4 bytes for each 128 "
          "values; combine is in bf16")
      ->check(one_of({"bf16", "fp8"}))
      ->capture_default_str()
      ->type_name("TYPE");
  command
      .add_option("--wire-width", options.wire_width,
                  "values of a copy, if other than --hidden are sent")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--weight-type", options.weight_type,
                  "the type of the experts' weights, which are read from memory where the hardware "
                  "says how fast that is: bf16 or fp8")
      ->check(one_of({"bf16", "fp8"}))
      ->capture_default_str()
      ->type_name("TYPE");
}

}  // namespace

void add_layers_option(CLI::App& command, bool& prints_layers) {
  command.add_flag("--layers", prints_layers,
                   "also print the copies and the imbalance of each layer; * marks those above the "
                   "bound on imbalance");
}

void add_prediction_options(CLI::App& command, PredictionOptions& options) {
  add_prediction_time_options(command, options);
  add_engine_options(command, options.engine, options.backend);
  command
      .add_option("--copy-mode", options.copy_mode,
                  "how copies are sent: per-expert, per-rank, per-node or all-gather; default is "
                  "per-node if there are several nodes of several ranks, else per-rank")
      ->check(offered({"per-expert", "per-rank", "per-node", "all-gather"}))
      ->type_name("MODE");
  command
      .add_option("--replica-rule", options.rule,
                  "how replicas are chosen: fewest-ranks, local-first or random; default is the "
                  "engine's rule, or fewest-ranks")
      ->check(offered({"fewest-ranks", "local-first", "random"}))
      ->type_name("RULE");
  command
      .add_option(
          "--homes", options.homes,
          "the home ranks of tokens: uniform (expected values over all ranks), sequences (each "
          "sequence has one home, in turn), or signature (the signature of the plan chooses them; "
          "for c2r simulate only)")
      ->capture_default_str()
      ->check(offered({"uniform", "sequences", "signature"}))
      ->type_name("HOMES");
  command
      .add_option("--on", options.part,
                  "the sequences to count: all, even, odd, first-half or second-half")
      ->capture_default_str()
      ->check(offered_parts())
      ->type_name("PART");
  command
      .add_option("--cluster", options.cluster,
                  std::string("instead of the plan's own: ") + kClusterHelp)
      ->type_name("CLUSTER");
  command
      .add_option("--hidden", options.hidden,
                  "values of a token: also print the bytes of dispatch and combine")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--intermediate", options.intermediate,
                  "the inner width of the experts: also print the predicted time of a layer")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--overlap", options.overlap,
                  "for times, communication and experts: added, or overlapped in chunks")
      ->capture_default_str()
      ->check(offered({"added", "overlapped"}))
      ->type_name("HOW");
  command.add_option("--seed", options.seed, "the seed of random numbers")
      ->check(in_range(0, INT64_MAX))
      ->capture_default_str()
      ->type_name("N");
  add_threads(command, options.num_threads);
}

void add_printing_options(CLI::App& command, PredictionOptions& options) {
  command
      .add_option("--tokens-per-second", options.tokens_per_second,
                  "with --engine and --hidden: also print the GB/s on all links together")
      ->check(number_in(1e-3, 1e15))
      ->type_name("N");
  command.add_flag("--json", options.is_json, "print every layer's numbers as one JSON object");
  add_layers_option(command, options.prints_layers);
}

}  // namespace c2r::cli
