// Calls the shared library that contains a module of c2r.
#include <cstdint>
#include <cstdio>

std::int64_t sum_of_ranks();

int main() {
  std::printf("sum %d\n", static_cast<int>(sum_of_ranks()));
}
