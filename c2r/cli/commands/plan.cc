// `c2r plan`: makes a plan from a trace.
#include "c2r/plan/plan.h"

#include <atomic>
#include <cmath>
#include <csignal>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/commands/plan_options.h"
#include "c2r/cli/inputs.h"
#include "c2r/cli/prediction_options.h"
#include "c2r/cli/progress_line.h"
#include "c2r/core/error.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/make_plan.h"
#include "c2r/plan/survival.h"
#include "c2r/report/engine_traffic.h"
#include "c2r/report/homes.h"
#include "c2r/report/predictions.h"
#include "c2r/report/savings.h"
#include "c2r/report/scenarios.h"
#include "c2r/report/wrap.h"

namespace c2r::cli {
namespace {

// The first Ctrl-C ends the search, and the best plan so far is written. The second ends the
// command.
std::atomic<bool> should_stop = false;

class StopOnInterrupt {
 public:
  StopOnInterrupt()
      : previous_(std::signal(SIGINT, [](int) {
          should_stop = true;
          std::signal(SIGINT, SIG_DFL);
        })) {}
  StopOnInterrupt(const StopOnInterrupt&) = delete;
  StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;
  ~StopOnInterrupt() { std::signal(SIGINT, previous_); }

 private:
  void (*previous_)(int);
};

std::string value_text(const PlacementObjective& objective, double value) {
  switch (objective.goal) {
    case Goal::kTime:
      return fmt::format("{:.1f} us predicted", 1e6 * value);
    case Goal::kImbalance:
      return fmt::format("a rank imbalance of {:.4f}", value);
    case Goal::kCopies:
      break;
  }
  if (objective.imbalance_weight > 0) {
    return fmt::format("copies + {} x (imbalance - 1) of {:.4f}", objective.imbalance_weight,
                       value);
  }
  return fmt::format("{} of {:.4f}",
                     objective.node_copy_cost > 0 ? "weighted copies" : "copies per token", value);
}

// The layers that miss a bound on the fitted tokens, served in the order in which they come.
std::string missed_text(const SearchReport& search, std::span<const std::int32_t> layer_indices) {
  if (search.num_missed_bounds == 0) return "";
  std::vector<std::int64_t> missed, infeasible;
  for (std::size_t layer = 0; layer < search.layers.size(); ++layer) {
    if (search.layers[layer].meets_bounds) continue;
    missed.push_back(std::int64_t(layer));
    if (search.layers[layer].is_proved_infeasible) infeasible.push_back(std::int64_t(layer));
  }
  const PlacementObjective& objective = search.objective;
  std::string text = fmt::format(
      "on the fitted tokens, {} of {} layers miss {} ({}): the best found is kept", missed.size(),
      search.layers.size(),
      objective.max_copy_cost ? fmt::format("--max-copies {}", *objective.max_copy_cost)
                              : fmt::format("--max-imbalance {:.4}", *objective.max_imbalance),
      layers_text(missed, layer_indices));
  if (!infeasible.empty()) {
    text += infeasible.size() == missed.size()
                ? "; it is proved that no placement of these slots can keep the bound there"
                : fmt::format(
                      "; in {} of them ({}) it is proved that no placement of these slots "
                      "can keep the bound",
                      infeasible.size(), layers_text(infeasible, layer_indices));
  }
  return text + "\n";
}

// What a time is of, if times are minimized.
std::string time_goal_text(const PlanOptions& options, const Plan& plan,
                           const PlacementObjective& objective) {
  if (objective.goal != Goal::kTime) return "";
  const auto& batch = objective.layer_time->batch_tokens;
  const CopyMode mode = objective.copy_mode.value_or(default_copy_mode(plan.cluster));
  return fmt::format(
      "minimized: the predicted time of a layer for {}, with copies sent {}{}; reading weights is "
      "not in it\n",
      batch ? fmt::format("a batch of {} tokens", *batch) : "all fitted tokens as one batch",
      name_of(mode),
      options.engine.empty() ? "" : fmt::format(" as {} sends them", options.engine));
}

// Bounds by columns are at most some percent below what is found, those by companions often 40 %.
constexpr double kStrongBound = 0.9;

// The value that the search reached, how far it can be from the optimum, and the bounds that it
// missed.
std::string reached_text(const SearchReport& search, std::span<const std::int32_t> layer_indices) {
  const PlacementObjective& objective = search.objective;
  const auto num_layers = std::ssize(search.layers);
  const double value = search.mean_value, bound = search.mean_value_bound;
  std::string text = fmt::format("on the fitted tokens, {}", value_text(objective, value));
  if (search.num_proved_optimal == num_layers) {
    text += "; every layer is proved optimal\n";
  } else {
    text += fmt::format(
        "; no placement of these slots{} can be below {:.1f} % of it; {} of {} layers are proved "
        "optimal\n",
        objective.max_imbalance || objective.max_copy_cost ? " within the bound" : "",
        value > 0 ? 100 * bound / value : 100, search.num_proved_optimal, num_layers);
    if (objective.goal == Goal::kCopies && bound < kStrongBound * value) {
      text +=
          "that bound is weak, as always where the contents of a rank are too many to be listed: "
          "most of the gap is the bound's\n";
    }
  }
  return text + missed_text(search, layer_indices);
}

// Explains why contiguous experts make fewer copies than the plan on the reported tokens, if they
// do: the table alone would look like a mistake.
std::string contiguous_text(const SearchReport& search) {
  if (!search.contiguous) return "";
  const auto& [copies, planned, imbalance] = *search.contiguous;
  const auto& bound = search.objective.max_imbalance;
  if (copies >= planned || !bound || imbalance <= *bound) {
    return fmt::format(
        "contiguous experts make fewer copies here; on the fitted tokens, where they "
        "cost {:.4f}, the plan costs {:.4f}\n",
        copies, planned);
  }
  return fmt::format(
      "the bound of {:.4g} on imbalance costs copies: on the fitted tokens {:.4f}, where "
      "contiguous "
      "experts make {:.4f} with a rank imbalance of up to {:.4f}, which --max-imbalance {:.2f} "
      "allows\n",
      *bound, planned, copies, imbalance, std::ceil(100 * imbalance) / 100);
}

// Explains replicas that the user did not ask for.
std::string remainder_text(const Plan& plan) {
  const std::int32_t ep_size = plan.cluster.ep_size();
  const std::int32_t num_left = (ep_size - plan.num_experts % ep_size) % ep_size;
  if (num_left == 0) return "";
  return fmt::format("{} experts do not divide over {} ranks: the {} left hold{} {}\n",
                     plan.num_experts, ep_size,
                     num_left == 1 ? "slot" : fmt::format("{} slots", num_left),
                     num_left == 1 ? "s" : "", num_left == 1 ? "a replica" : "replicas");
}

std::string provenance_text(const Provenance& provenance) {
  std::string text = fmt::format("method {}, seed {}", provenance.method, provenance.seed);
  for (const auto& [name, value] : provenance.options) {
    std::visit([&, &key = name](const auto& as) { text += fmt::format(", {} {}", key, as); },
               value);
  }
  if (provenance.ended_by == "work") text += "; all of the search was done";
  if (provenance.ended_by == "seconds") text += "; cut short by --seconds: the best found is kept";
  if (provenance.ended_by == "interrupt") text += "; interrupted: the best found is kept";
  return text + "\n";
}

// Whether the input is statistics, which come alone.
bool holds_counts(const PlanOptions& options) {
  return options.traces.size() == 1 && is_statistics_file(options.traces[0]);
}

std::vector<Trace> opened_traces(const PlanOptions& options) {
  std::vector<Trace> traces;
  for (const std::string& file : options.traces) traces.emplace_back(file);
  return traces;
}

std::string engine_text_of(const PlanOptions& options, const Plan& plan,
                           const RoutedTokens& tokens) {
  const EngineBackend engine = *engine_of(options.engine, options.backend, options.phase);
  TrafficModel traffic = for_engine(engine, {default_traffic(plan.cluster)}).traffic;
  if (tokens.statistics != nullptr) traffic.replica_rule = ReplicaRule::kLocalFirst;
  std::optional<CopyFormat> format;
  if (options.goal.hidden > 0) format = CopyFormat{.hidden = options.goal.hidden};
  ProgressLine progress("counting");
  return engine_traffic_text(predict_engine_traffic(engine, placements_of(plan), tokens, traffic,
                                                    options.num_threads, progress),
                             format, std::nullopt);
}

// @returns what the engine of --engine sends on the reported tokens; empty without it
std::string engine_text(const PlanOptions& options, const Plan& plan) {
  if (options.engine.empty()) return "";
  if (holds_counts(options)) {
    const std::string& file = options.traces[0];
    const CollaborationStatistics statistics = read_statistics(file);
    return engine_text_of(options, plan, routed_tokens_of(statistics, file));
  }
  const auto traces = opened_traces(options);
  const SequencePart reported = other_part(parse_sequence_part(options.fit));
  if (traces.size() == 1) {
    return engine_text_of(options, plan, routed_tokens_of(traces[0], reported));
  }
  const JoinedTraces joined = join_traces(traces);
  return engine_text_of(options, plan,
                        {.trace = &joined.trace,
                         .ranges = tokens_of(joined, traces, reported),
                         .name = joined.trace.path()});
}

// How even the balancer made the fitted loads, and how even they can be.
std::string balance_text(const BalanceReport& balance) {
  return fmt::format(
      "on the fitted loads, a rank imbalance of {:.4f}; no placement of these slots can be below "
      "{:.4f}\n",
      balance.imbalance, balance.imbalance_bound);
}

void print_losses(const Plan& plan) {
  const auto losses = losses_of_ranks(plan);
  for (std::size_t rank = 0; rank < losses.size(); ++rank) {
    std::cout << fmt::format(
        "loss of rank {}: {} of {} experts are on no other rank, in {} of {} layers\n", rank,
        losses[rank].num_orphans, std::int64_t{plan.num_experts} * plan.num_layers(),
        losses[rank].num_layers, plan.num_layers());
  }
}

std::string plan_text(const MadePlan& made, const PlanOptions& options, bool prints_layers) {
  const Plan& plan = made.plan;
  const JudgedLayers layers = judged_layers_of(plan);
  std::string text;
  if (made.search && made.search->unseen_max_imbalance) {
    text += fmt::format("fitting with a bound on imbalance of {:.4f}, for {} on other tokens\n",
                        *made.search->objective.max_imbalance, *made.search->unseen_max_imbalance);
  }
  if (!plan.predictions.empty()) {
    text += prediction_table(plan.predictions, plan.cluster, std::nullopt, layers);
    if (prints_layers) text += layers_table(plan.predictions, layers);
  }
  text += savings_line("the plan", made.saved);
  if (made.search) {
    text += time_goal_text(options, plan, made.search->objective) +
            reached_text(*made.search, layers.layer_indices) + contiguous_text(*made.search);
  }
  if (made.balance) text += balance_text(*made.balance);
  text += scenarios_table(made.scenarios);
  if (made.homes) text += homes_table(*made.homes);
  if (made.moves) text += moves_text(*made.moves, plan.predictions.back());
  return text + remainder_text(plan) + provenance_text(plan.provenance) +
         fmt::format("{}: {} layers, {} slots on each of {} ranks\n", options.output,
                     plan.num_layers(), plan.layers[0].placement.slots_per_rank(),
                     plan.cluster.ep_size());
}

// @param has_method whether the user has chosen one
MadePlan make_from_counts(const PlanOptions& options, bool has_method, PlanRequest request,
                          const PlanHooks& hooks) {
  const std::string& file = options.traces[0];
  C2R_REQUIRE(parse_sequence_part(options.fit) == SequencePart::kAll, kInvalidArgument,
              "{} holds counts, which are of all sequences, not of --fit {}", file, options.fit);
  const CollaborationStatistics statistics = read_statistics(file);
  if (!statistics.has_pairs && !has_method) request.method = kBalanceMethod;
  return make_plan(statistics, file, request, hooks);
}

MadePlan make(const PlanOptions& options, bool has_method) {
  const SequencePart fit = parse_sequence_part(options.fit);
  const PlanRequest request =
      plan_request_of(options, on_hardware(read_cluster(options.cluster), options.hardware));
  const StopOnInterrupt interrupt;
  ProgressLine progress("counting");
  const PlanHooks hooks{
      .progress = &progress,
      .stop = &should_stop,
      .warn = [](const std::string& text) { std::cerr << "warning: " << text << "\n"; },
      .top_t_name = "--top-t"};
  if (holds_counts(options)) return make_from_counts(options, has_method, request, hooks);
  return make_plan(opened_traces(options), request, fit, hooks);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto* const command = app.add_subcommand("plan", "place experts so that tokens reach few ranks");
  auto options = std::make_shared<PlanOptions>();
  add_plan_options(*command, *options);
  command->footer(
      "Example:\n"
      "  c2r plan trace.safetensors --cluster 1x2 --fit even -o plan.json\n"
      "  c2r plan trace.safetensors --cluster 1x2 --minimize imbalance \\\n"
      "      --max-copies 1.5 -o b.json");
  const auto prints_losses = std::make_shared<bool>(false);
  command->add_flag("--survive", *prints_losses,
                    "print how many experts are lost with each rank: those on no other rank");
  const auto prints_layers = std::make_shared<bool>(false);
  add_layers_option(*command, *prints_layers);
  command->callback([command, options, prints_losses, prints_layers] {
    check_plan_options(*command, *options);
    const MadePlan made = make(*options, command->count("--method") > 0);
    write_plan(made.plan, options->output);
    std::cout << wrap_text((made.left_out.empty() ? engine_text(*options, made.plan) : "") +
                           plan_text(made, *options, *prints_layers));
    if (!made.left_out.empty()) std::cerr << "warning: " << left_out_text(made) << "\n";
    if (*prints_losses) print_losses(made.plan);
    const std::string warning = made.check ? warning_text(*made.check, made.plan.predictions.back(),
                                                          layer_indices_of(made.plan))
                                           : "";
    if (!warning.empty()) std::cerr << "warning: " << warning << "\n";
    if (made.check && !made.check->sample_warning.empty()) {
      std::cerr << "warning: " << made.check->sample_warning << "\n";
    }
  });
}

}  // namespace c2r::cli
