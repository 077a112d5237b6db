// c2r profile on the ranks of mpirun, one of which fails as told, for rank_failures_test.py:
//   failing_model HOW LABEL FAILING_RANK TIMEOUT_MS MODEL OUTPUT
// HOW: throw, kill (SIGKILL), stop (SIGSTOP), or none. The rank fails instead of starting the
// exchange LABEL, so in whatever comes before it: its sum of experts before "layer 1 combine". The
// label "after MPI" is no exchange: the rank fails when MPI has ended. As HOW, "list" prints all
// labels instead.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "c2r/core/error.h"
#include "c2r/engine/profile.h"
#include "c2r/engine/session.h"
#include "c2r/transport/mpi/run_mpi.h"

namespace {

using namespace c2r;

void fail(std::string_view how) {
  fmt::print(stderr, "failing now\n");
  if (how == "throw") throw Error(ErrorCode::kInvalidFile, "the shard is lost");
  if (how == "kill") raise(SIGKILL);
  if (how == "stop") raise(SIGSTOP);
}

// A transport that fails instead of starting one exchange.
class FailingTransport final : public Transport {
 public:
  FailingTransport(Transport& transport, std::string_view how, std::string_view label)
      : transport_(transport), how_(how), label_(label) {}

  RankId rank() const override { return transport_.rank(); }
  std::int32_t ep_size() const override { return transport_.ep_size(); }
  const Traffic& sent() const override { return transport_.sent(); }
  std::unique_ptr<Exchange> start(std::span<const Outgoing> send, std::span<const Incoming> recv,
                                  std::string label) override {
    if (how_ == "list") fmt::print("{}\n", label);
    if (label == label_) fail(how_);
    return transport_.start(send, recv, std::move(label));
  }

 private:
  Transport& transport_;
  std::string_view how_, label_;
};

// Sequences of different lengths: 5, so that some of 4 ranks have another one.
NextSequence sequences() {
  return [num_left = 5]() mutable -> std::optional<std::vector<TokenId>> {
    if (num_left == 0) return std::nullopt;
    std::vector<TokenId> tokens;
    for (int t = 0; t < 7 * num_left; ++t) tokens.push_back(TokenId{(t * 11 + num_left) % 60});
    --num_left;
    return tokens;
  };
}

void run(Transport& transport, const char* folder, const char* output) {
  Session session({.model = folder, .num_threads = 1, .max_pass_tokens = 8}, transport);
  NoProgress progress;
  (void)profile(session.engine(), sequences(), {.output = output, .window = 64}, progress);
  if (session.is_first_rank()) fmt::print(stderr, "all done\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const std::string_view how = argv[1], label = argv[2];
  const std::size_t failing_rank = std::strtoul(argv[3], nullptr, 10);
  bool fails = false;
  const auto body = [&](Transport& transport) {
    fails = index(transport.rank()) == failing_rank;
    FailingTransport failing(transport, fails ? how : "none", fails ? label : "");
    run(failing, argv[5], argv[6]);
  };
  run_mpi(body, std::chrono::milliseconds(std::strtol(argv[4], nullptr, 10)),
          [](const std::string& line) { fmt::print(stderr, "failing_model: {}\n", line); });
  if (fails && label == "after MPI") fail(how);
}
