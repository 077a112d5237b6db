// The `c2r` program.
#include "c2r/cli/run.h"

int main(int argc, char** argv) {
  return c2r::cli::run(argc, argv);
}
