#include "c2r/cli/model_run.h"

#include <CLI/Error.hpp>
#include <iostream>
#include <mutex>
#include <optional>

#include "c2r/cli/app.h"
#include "c2r/core/error.h"
#include "c2r/engine/agreement.h"
#include "c2r/engine/memory.h"
#include "c2r/io/memory.h"
#include "c2r/plan/predict.h"
#include "c2r/transport/collectives.h"

namespace c2r::cli {
namespace {

// Runs `step` on every rank. If it throws on some, the lowest of them says why, and then it throws
// on all, so that they can end in order.
void agree(Transport& transport, const std::string& command, const std::function<void()>& step) {
  std::string message;
  std::int64_t status = 0;
  try {
    step();
  } catch (const Error& e) {
    message = e.what();
    status = exit_status(e);
  } catch (const std::exception& e) {
    message = message_of(e);
    status = kFailed;
  }
  const std::int64_t place =
      transport.ep_size() - static_cast<std::int64_t>(index(transport.rank()));
  std::int64_t first = status == 0 ? 0 : place;
  all_reduce(transport, {&first, 1}, Reduction::kMax, "start of the run");
  if (first == 0) return;
  if (first != place) status = 0;
  if (status != 0) std::cerr << fmt::format("c2r {}: {}\n", command, message) << std::flush;
  all_reduce(transport, {&status, 1}, Reduction::kMax, "failed start of the run");
  throw CLI::RuntimeError(static_cast<int>(status));
}

// Where the experts are: as the plan says, or contiguously.
ExpertParallelOptions expert_parallel_options(const ModelOptions& options,
                                              const ModelConfig& config, std::int32_t ep_size) {
  if (options.plan.empty()) {
    const Cluster cluster{.num_nodes = 1, .ranks_per_node = ep_size};
    const TraceHeader header{.num_experts = config.num_experts,
                             .top_k = config.top_k,
                             .layer_indices = config.moe_layers};
    return {.placements = contiguous_placements(header, cluster),
            .dispatch = options.dispatch(cluster),
            .num_chunks = options.num_chunks};
  }
  const Plan plan = read_plan(options.plan);
  const Cluster& cluster = plan.cluster;
  C2R_REQUIRE(cluster.ep_size() == ep_size, kInvalidArgument,
              "{}: the plan is for {} ranks, but there are {}; start {}, or make a plan for {}",
              options.plan, cluster.ep_size(), ep_size, cluster.ep_size(), ep_size);
  return {.placements = placements_of(plan),
          .dispatch = options.dispatch(cluster),
          .num_chunks = options.num_chunks};
}

// What a rank holds while it runs.
class Session {
 public:
  Session(const ModelOptions& options, Transport* transport, std::span<const RankId> neighbours,
          int num_threads)
      : model_(options.model, options.plan), coder_(options.model, model_.config()) {
    const EngineOptions engine_options = options.engine(num_threads);
    (void)options.dispatch({});  // a wrong name is an error on one rank, too
    if (transport == nullptr) {
      engine_.emplace(model_, engine_options);
      return;
    }
    parallel_ = expert_parallel_options(options, model_.config(), transport->ep_size());
    if (const auto available = available_bytes()) {
      check_memory(model_, parallel_.placements, neighbours, *available);
    }
    engine_.emplace(model_, engine_options, *transport, parallel_);
  }

  OpenModel open() { return {model_, *engine_, coder_}; }
  const ExpertParallelOptions& parallel() const { return parallel_; }

 private:
  Model model_;
  ExpertParallelOptions parallel_;
  std::optional<Engine> engine_;
  TextCoder coder_;
};

// What a plan does to the model itself.
void print_lists(const ModelOptions& options, const Model& model) {
  if (!model.has_replaced_lists()) return;
  std::cerr << fmt::format(
      "c2r {}: the collaborator lists of {} replace those of the model's config.json\n",
      options.command, options.plan);
}

// What one process takes from a plan.
void print_unused_placement(const ModelOptions& options) {
  if (options.plan.empty()) return;
  std::cerr << fmt::format(
      "c2r {}: one process has all experts, so {} of {} is used; --ranks or mpirun place experts\n",
      options.command,
      read_plan(options.plan).top_t ? "nothing but the collaborator lists" : "nothing",
      options.plan);
}

void print_memory(const std::vector<RankMemory>& ranks) {
  const auto megabytes = [](const std::optional<std::int64_t>& bytes) {
    return bytes ? fmt::format("{:.1f}", static_cast<double>(*bytes) / 1e6) : "unknown";
  };
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    std::cerr << fmt::format("rank {}: {} MB resident, of which {} MB are weights\n", rank,
                             megabytes(ranks[rank].resident_bytes),
                             megabytes(ranks[rank].weight_bytes));
  }
}

void run_rank(const ModelOptions& options, Transport& transport,
              const std::function<Work(OpenModel&)>& prepare) {
  const auto neighbours = ranks_of_this_machine(transport);
  const int share = num_threads_of_rank(transport);  // collective, so it is always called
  const int num_threads = options.num_threads > 0 ? options.num_threads : share;
  std::optional<Session> session;
  std::optional<OpenModel> open;
  Work work;
  agree(transport, options.command, [&] {
    session.emplace(options, &transport, neighbours, num_threads);
    open.emplace(session->open());
  });
  agree(transport, options.command, [&] {
    check_same_run(transport, open->model, open->engine.decoder().arithmetic(),
                   session->parallel());
  });
  agree(transport, options.command, [&] { work = prepare(*open); });
  if (options.plan.empty() && open->is_first_rank()) {
    std::cerr << fmt::format("c2r {}: there is no plan, so experts are placed contiguously\n",
                             options.command);
  }
  if (open->is_first_rank()) print_lists(options, open->model);
  work();
  const auto memory = gather_memory(transport, open->model);
  if (is_under_mpirun()) print_memory(memory);
}

}  // namespace

void run_model(const ModelOptions& options, const std::function<Work(OpenModel&)>& prepare) {
  if (options.ranks.num_ranks == 0 && !is_under_mpirun()) {
    Session session(options, nullptr, {},
                    options.num_threads > 0 ? options.num_threads : default_num_threads());
    OpenModel open = session.open();
    print_unused_placement(options);
    print_lists(options, open.model);
    prepare(open)();
    return;
  }
  std::mutex mutex;
  std::optional<CLI::RuntimeError> failure;
  run_ranks(options.ranks, [&](Transport& transport) {
    try {
      run_rank(options, transport, prepare);
    } catch (const CLI::RuntimeError& e) {
      const std::lock_guard lock(mutex);
      failure = e;
    }
  });
  if (failure) throw CLI::RuntimeError(*failure);
}

}  // namespace c2r::cli
