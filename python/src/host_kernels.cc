// Runs the bodies of the kernels on the host, one thread after the other: what tests compare.
#include <cstdint>
#include <variant>

#include "python/src/bindings.h"
#include "python/src/kernels.h"

namespace c2r::python {
namespace {

constexpr std::int64_t kThreadsOfSource = 3;  // of a block; a device has 32 to 256

void run_body(const ChooseExperts& kernel) {
  for (std::int64_t token = 0; token < kernel.num_blocks(); ++token) {
    kernel.run_in_warp(HostWarp{}, token);
  }
}

template <int kVector>
void run_with_vectors(const SumBySource& kernel) {
  for (std::int64_t source = 0; source < kernel.num_blocks(); ++source) {
    for (std::int64_t thread = 0; thread < kThreadsOfSource; ++thread) {
      kernel.run<kVector>(source, {.first = thread, .step = kThreadsOfSource});
    }
  }
}

template <int kVector>
void run_with_vectors(const SumBySourceGradients& kernel) {
  for (std::int64_t row = 0; row < kernel.num_blocks(); ++row) {
    kernel.run_in_warp<kVector>(HostWarp{}, row);
  }
}

template <class Kernel>
void run_body(const Kernel& kernel) {
  kernel.is_vectorized() ? run_with_vectors<kRowVector>(kernel) : run_with_vectors<1>(kernel);
}

}  // namespace

void add_host_kernels(nb::module_& module) {
  add_kernels(module,
              {.place = {}, .launch = [](const OperatorKernel& kernel, int, std::uintptr_t) {
                 std::visit([](const auto& body) { run_body(body); }, kernel);
               }});
}

}  // namespace c2r::python
