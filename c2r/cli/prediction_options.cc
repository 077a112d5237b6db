// The options of the commands that predict, and the request that they make.
#include "c2r/cli/prediction_options.h"

#include "c2r/cli/app.h"
#include "c2r/core/error.h"

namespace c2r::cli {

PredictRequest request_of(const PredictionOptions& options, const Cluster& cluster) {
  const Overlap overlap = parse_overlap(options.overlap);
  PredictRequest request{.traffic = {.cluster = cluster,
                                     .copy_mode = options.copy_mode.empty()
                                                      ? default_copy_mode(cluster)
                                                      : parse_copy_mode(options.copy_mode),
                                     .replica_rule = parse_replica_rule(options.rule),
                                     .seed = options.seed,
                                     .homes = parse_homes(options.homes)}};
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

std::optional<CopyFormat> format_of(const PredictionOptions& options) {
  if (options.hidden == 0) return std::nullopt;
  return CopyFormat{.hidden = options.hidden};
}

void add_prediction_options(CLI::App& command, PredictionOptions& options) {
  command
      .add_option("--copy-mode", options.copy_mode,
                  "how copies are sent: per-expert, per-rank, per-node or all-gather; default is "
                  "per-node if there are several nodes of several ranks, else per-rank")
      ->type_name("MODE");
  command
      .add_option("--replica-rule", options.rule,
                  "how replicas are chosen: fewest-ranks, local-first or random")
      ->capture_default_str()
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
