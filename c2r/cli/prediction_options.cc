// The options of the commands that predict, and the request that they make.
#include "c2r/cli/prediction_options.h"

#include <fmt/ranges.h>

#include <string_view>
#include <vector>

#include "c2r/cli/app.h"
#include "c2r/core/error.h"
#include "c2r/plan/engines/engine_traffic.h"

namespace c2r::cli {

PredictRequest request_of(const PredictionOptions& options, const Cluster& cluster) {
  const Overlap overlap = parse_overlap(options.overlap);
  PredictRequest request{.traffic = {.cluster = cluster,
                                     .copy_mode = options.copy_mode.empty()
                                                      ? default_copy_mode(cluster)
                                                      : parse_copy_mode(options.copy_mode),
                                     .seed = options.seed,
                                     .homes = parse_homes(options.homes)}};
  if (const auto engine = engine_of(options.engine, options.backend)) {
    C2R_REQUIRE(options.copy_mode.empty(), kInvalidArgument,
                "--copy-mode and --engine both say how copies are sent: give one of them");
    request = for_engine(*engine, std::move(request));
  }
  if (!options.rule.empty()) request.traffic.replica_rule = parse_replica_rule(options.rule);
  C2R_REQUIRE(!options.tokens_per_second || (!options.engine.empty() && options.hidden > 0),
              kInvalidArgument, "--tokens-per-second needs --engine and --hidden");
  if (options.intermediate > 0) {
    C2R_REQUIRE(options.hidden > 0, kInvalidArgument, "--intermediate needs --hidden");
    C2R_REQUIRE(
        cluster.device_flop_per_s.has_value(), kInvalidArgument,
        "--intermediate asks for predicted times, but the cluster has no device_flop_per_s; "
        "give --cluster a JSON file with it");
    request.layer_time = {
        .format = {.hidden = options.hidden},
        .flop_per_choice = flop_of_gated_mlp(options.hidden, options.intermediate),
        .overlap = overlap};
  }
  return request;
}

void add_engine_options(CLI::App& command, std::string& engine, std::string& backend) {
  std::vector<std::string_view> names;
  for (const EngineRow& row : engines()) {
    if (!row.backends.empty()) names.push_back(row.name);
  }
  auto* const option =
      command
          .add_option("--engine", engine,
                      fmt::format("the engine that runs the model: {}. Copies are counted as its "
                                  "backend sends them, and compared with what it sends today",
                                  fmt::join(names, ", ")))
          ->type_name("NAME");
  command
      .add_option("--backend", backend,
                  "the all-to-all backend of the engine, such as deepep; default is the engine's")
      ->needs(option)
      ->type_name("NAME");
}

std::optional<EngineBackend> engine_of(const std::string& engine, const std::string& backend) {
  if (engine.empty()) return std::nullopt;
  return find_engine_backend(engine, backend);
}

std::optional<CopyFormat> format_of(const PredictionOptions& options) {
  if (options.hidden == 0) return std::nullopt;
  return CopyFormat{.hidden = options.hidden};
}

void add_prediction_options(CLI::App& command, PredictionOptions& options) {
  add_engine_options(command, options.engine, options.backend);
  command
      .add_option("--tokens-per-second", options.tokens_per_second,
                  "with --engine and --hidden: also print the GB/s on all links together")
      ->check(number_in(1e-3, 1e15))
      ->type_name("N");
  command
      .add_option("--copy-mode", options.copy_mode,
                  "how copies are sent: per-expert, per-rank, per-node or all-gather; default is "
                  "per-node if there are several nodes of several ranks, else per-rank")
      ->type_name("MODE");
  command
      .add_option("--replica-rule", options.rule,
                  "how replicas are chosen: fewest-ranks, local-first or random; default is the "
                  "engine's rule, or fewest-ranks")
      ->type_name("RULE");
  command
      .add_option(
          "--homes", options.homes,
          "the home ranks of tokens: uniform (expected values over all ranks), or sequences (each "
          "sequence has one home)")
      ->capture_default_str()
      ->type_name("HOMES");
  command
      .add_option("--on", options.part,
                  "the sequences to count: all, even, odd, first-half or second-half")
      ->capture_default_str()
      ->type_name("PART");
  command
      .add_option("--cluster", options.cluster,
                  std::string("instead of the plan's own: ") + kClusterHelp)
      ->type_name("CLUSTER");
  command
      .add_option(
          "--hidden", options.hidden,
          "values of a token, which is sent in bf16: also print the bytes of dispatch and combine")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option(
          "--intermediate", options.intermediate,
          "the inner width of the experts: also print the predicted time of a layer, for one batch "
          "of all counted tokens")
      ->check(in_range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--overlap", options.overlap,
                  "for times, communication and experts: added, or overlapped in chunks")
      ->capture_default_str()
      ->type_name("HOW");
  command.add_option("--seed", options.seed, "the seed of random numbers")
      ->check(in_range(0, INT64_MAX))
      ->capture_default_str()
      ->type_name("N");
  command.add_flag("--json", options.is_json, "print every layer's numbers as one JSON object");
  add_threads(command, options.num_threads);
}

}  // namespace c2r::cli
