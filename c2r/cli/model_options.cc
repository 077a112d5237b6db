#include "c2r/cli/model_options.h"

#include "c2r/cli/app.h"
#include "c2r/core/error.h"

namespace c2r::cli {

EngineOptions ModelOptions::engine() const {
  C2R_REQUIRE(dtype == "bf16" || dtype == "f32", kInvalidArgument,
              "--dtype takes bf16 or f32, not '{}'", dtype);
  return {.arithmetic = dtype == "bf16" ? Arithmetic::kBf16 : Arithmetic::kF32,
          .num_threads = num_threads,
          .chunk_tokens = chunk_tokens};
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  command.add_option("model", options.model, "folder with config.json and *.safetensors")
      ->required();
  command
      .add_option("--plan", options.plan,
                  "route by the collaborator lists of this plan, not by the config's")
      ->type_name("FILE");
  command
      .add_option("--dtype", options.dtype,
                  "bf16: bf16 weights times bf16 where the processor can; f32: everything in f32")
      ->capture_default_str()
      ->type_name("TYPE");
  command.add_option("--chunk-tokens", options.chunk_tokens, "tokens of one forward pass, at most")
      ->check(in_range(1, 1 << 16))
      ->capture_default_str()
      ->type_name("N");
  add_threads(command, options.num_threads);
}

}  // namespace c2r::cli
