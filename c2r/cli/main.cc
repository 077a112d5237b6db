// The main function of the `c2r` program.
#include "c2r/cli/run.h"
#include "c2r/cli/signals.h"

int main(int argc, char** argv) {
  c2r::cli::handle_signals();
  const int status = c2r::cli::run(argc, argv);
  c2r::cli::await_ending_signal();
  return status;
}
