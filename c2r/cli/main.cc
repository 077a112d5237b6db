// The main function of the `c2r` program.
#include "c2r/cli/run.h"
#include "c2r/cli/signals.h"

int main(int argc, char** argv) {
  c2r::cli::handle_signals();
  return c2r::cli::run(argc, argv);
}
