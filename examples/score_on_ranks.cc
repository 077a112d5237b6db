// Scores token sequences with a model on several ranks: on NUM_RANKS threads of this process or,
// without NUM_RANKS, on the processes that mpirun has started.
//   score_on_ranks MODEL TOKENS [NUM_RANKS]    TOKENS: a file with a JSON array of token ids a line
#include <c2r/core/error.h>
#include <c2r/engine/requests/score_requests.h>
#include <c2r/engine/session.h>
#include <c2r/transport/in_process.h>
#ifdef C2R_HAVE_MPI
#include <c2r/transport/mpi/run_mpi.h>
#endif

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace {

void score_on_rank(const char* model, const char* tokens, c2r::Transport& transport) {
  c2r::Session session({.model = model,
                        .arithmetic = c2r::Arithmetic::kF32,
                        .num_threads = 1,
                        .copy_mode = c2r::CopyMode::kPerExpert},
                       transport);
  c2r::TextEncoder encoder(model, session.model().config());
  const c2r::SequenceFiles files{.tokens = {tokens}};
  c2r::WindowRequests windows(files, encoder, /*window=*/128);
  const auto next_request = [&]() -> std::optional<c2r::ScoreRequest> {
    const auto window = windows.next();
    return window ? std::optional(window->request) : std::nullopt;
  };
  c2r::NoProgress progress;
  const auto total = c2r::score_all(session.engine(), next_request, {}, progress);
  if (!session.is_first_rank()) return;
  std::printf("log-likelihood %.4f of %d tokens, perplexity %.4f\n", total.log_likelihood,
              int(total.num_tokens), total.perplexity());
}

}  // namespace

int main(int argc, char** argv) {
  const auto body = [&](c2r::Transport& transport) { score_on_rank(argv[1], argv[2], transport); };
  try {
    if (argc == 4) {
      c2r::run_in_process(std::atoi(argv[3]), body);
      return 0;
    }
#ifdef C2R_HAVE_MPI
    if (argc == 3) {
      c2r::run_mpi(body, std::chrono::seconds(30),
                   [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
      return 0;
    }
#endif
  } catch (const c2r::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 2;
}
