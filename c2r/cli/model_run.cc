// Opens the model of a command in one process or on ranks, and prints each error once.
#include "c2r/cli/model_run.h"

#include <CLI/Error.hpp>
#include <atomic>
#include <iostream>
#include <optional>

#include "c2r/cli/app.h"
#include "c2r/cli/printable.h"
#include "c2r/cli/run_summary.h"
#include "c2r/core/error.h"
#include "c2r/engine/memory.h"
#include "c2r/engine/ranks/agreement.h"
#include "c2r/engine/ranks/run_traffic.h"
#include "c2r/engine/session.h"

namespace c2r::cli {
namespace {

void print_line(const ModelOptions& options, const std::string& text) {
  std::cerr << printable(fmt::format("c2r {}: {}", options.command, text)) + "\n" << std::flush;
}

// Warns that one process does not use the placement of a plan.
void print_unused_placement(const ModelOptions& options, const Model& model) {
  if (model.plan() == nullptr) return;
  print_line(options,
             fmt::format("one process has all experts, so {} of {} is used; --ranks or "
                         "mpirun place experts",
                         model.plan()->top_t ? "nothing but the collaborator lists" : "nothing",
                         options.plan));
}

void run_in_one_process(const ModelOptions& options, const Prepare& prepare) {
  std::vector<std::string> warnings;  // printed after print_unused_placement()
  Session session(options.session(),
                  [&](const std::string& warning) { warnings.push_back(warning); });
  TextEncoder encoder(options.model, session.model().config());
  OpenModel open{session.model(), session.engine(), encoder};
  print_unused_placement(options, open.model);
  for (const std::string& warning : warnings) print_line(options, warning);
  prepare(open)();
}

// The state of a rank, and its work once all ranks know that none of them has failed.
struct RankRun {
  std::optional<Session> session;
  std::optional<TextEncoder> encoder;
  std::optional<OpenModel> open;
  std::vector<std::string> warnings;  // printed once all ranks can run
  Work work;
};

// @throws as Session() and agree_on_errors()
void open_and_prepare(const ModelOptions& options, Transport& transport, const Prepare& prepare,
                      RankRun& run) {
  std::optional<SessionOptions> session_options;
  agree_on_errors(transport, "options of the run", [&] { session_options = options.session(); });
  run.session.emplace(*session_options, transport,
                      [&](const std::string& warning) { run.warnings.push_back(warning); });
  run.encoder.emplace(options.model, run.session->model().config());
  run.open.emplace(OpenModel{run.session->model(), run.session->engine(), *run.encoder});
  agree_on_errors(transport, "start of the run", [&] { run.work = prepare(*run.open); });
}

// Says on one rank what all ranks know. @returns the exit status
int say_once(const ModelOptions& options, const Transport& transport, const Error& error) {
  if (transport.rank() == RankId{0}) print_line(options, error.what());
  return exit_status(error);
}

// Runs the work of a rank. At its end rank 0 says what it took.
// @throws as the work and RunMeter::finish()
void work_and_sum_up(Transport& transport, RankRun& run) {
  const DispatchOptions& how = run.session->expert_parallel().dispatch;
  RunMeter meter(run.open->engine, how.traffic.cluster);
  run.work();
  const RunTraffic traffic = meter.finish();
  const auto memory = gather_memory(transport, run.open->model);
  if (!run.open->is_first_rank()) return;
  if (transport.ep_size() > 1) {
    std::optional<PredictedTraffic> predicted;
    if (const Plan* const plan = run.open->model.plan()) {
      predicted = predicted_traffic(*plan, how, run.open->model.config().hidden);
    }
    print_traffic(traffic, predicted, run.open->prints_json);
  }
  if (is_under_mpirun()) print_memory(memory);
}

// @returns the exit status
// @throws an error that not all ranks know, such as a failure of the transport
int run_rank(const ModelOptions& options, Transport& transport, const Prepare& prepare) {
  RankRun run;
  try {
    open_and_prepare(options, transport, prepare, run);
  } catch (const Error& e) {
    if (is_transport_failure(e)) throw;
    return say_once(options, transport, e);
  }
  for (const std::string& warning : run.warnings) print_line(options, warning);
  try {
    work_and_sum_up(transport, run);
  } catch (const AgreedError& e) {
    return say_once(options, transport, e);
  }
  return 0;
}

}  // namespace

void run_model(const ModelOptions& options, const Prepare& prepare) {
  if (options.ranks.num_ranks == 0 && !is_under_mpirun()) {
    run_in_one_process(options, prepare);
    return;
  }
  std::atomic<int> failure = 0;
  run_ranks(options.ranks, [&](Transport& transport) {
    if (const int status = run_rank(options, transport, prepare); status != 0) failure = status;
  });
  if (failure != 0) throw CLI::RuntimeError(failure);
}

}  // namespace c2r::cli
