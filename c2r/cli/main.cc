#include <iostream>

#include "c2r/cli/version.h"
int main() {
  std::cout << c2r::cli::version_text();
}
