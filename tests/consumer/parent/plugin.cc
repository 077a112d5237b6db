// A shared library that contains a module of c2r: the sum of what three ranks give.
#include <c2r/transport/collectives.h>
#include <c2r/transport/in_process.h>

std::int64_t sum_of_ranks() {
  std::int64_t sum = 0;
  c2r::run_in_process(3, [&](c2r::Transport& transport) {
    std::int64_t value = 1 + static_cast<std::int64_t>(index(transport.rank()));
    c2r::all_reduce(transport, std::span(&value, 1), c2r::Reduction::kSum, "sum");
    if (transport.rank() == c2r::RankId{0}) sum = value;
  });
  return sum;
}
