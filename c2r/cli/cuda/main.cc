// The main function of the program c2r-cuda: c2r with NVIDIA GPUs for `c2r bench layer`.
#include "c2r/bench/cuda/cuda_bench_device.h"
#include "c2r/cli/run.h"
#include "c2r/cli/signals.h"

int main(int argc, char** argv) {
  c2r::cli::handle_signals();
  const int status = c2r::cli::run(argc, argv, c2r::make_cuda_bench_device);
  c2r::cli::await_ending_signal();
  return status;
}
