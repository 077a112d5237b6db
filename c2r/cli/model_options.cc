// Declares the options of commands that run a model, and turns them into SessionOptions.
#include "c2r/cli/model_options.h"

#include "c2r/cli/app.h"
#include "c2r/cli/completion.h"
#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

void add_rank_group(CLI::App& command, ModelOptions& options) {
  add_rank_options(command, options.ranks);
  command
      .add_option(
          "--copy-mode", options.copy_mode,
          "how tokens are sent between ranks: once per-expert, per-rank or per-node; default is "
          "per-node if the plan has several nodes of several ranks, else per-rank")
      ->check(offered({"per-expert", "per-rank", "per-node"}))
      ->type_name("MODE");
  command
      .add_option("--row-type", options.row_type,
                  "the type of rows that are sent between ranks, f32 or bf16; default is --dtype")
      ->check(offered({"f32", "bf16"}))
      ->type_name("TYPE");
  add_chunks_option(command, options.num_chunks);
}

}  // namespace

SessionOptions ModelOptions::session() const {
  C2R_REQUIRE(dtype == "bf16" || dtype == "f32", kInvalidArgument,
              "--dtype takes bf16 or f32, not '{}'", dtype);
  SessionOptions options{.model = model,
                         .plan = plan,
                         .arithmetic = dtype == "bf16" ? Arithmetic::kBf16 : Arithmetic::kF32,
                         .max_pass_tokens = max_pass_tokens,
                         .num_chunks = num_chunks};
  if (num_threads > 0) options.num_threads = num_threads;
  if (!copy_mode.empty()) options.copy_mode = parse_copy_mode(copy_mode);
  if (!row_type.empty()) options.row_type = parse_row_type(row_type);
  return options;
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  options.command = command.get_name();
  command.add_option("model", options.model, "folder with config.json and *.safetensors")
      ->required();
  command
      .add_option(
          "--plan", options.plan,
          "place experts on ranks by this plan; if the plan has collaborator lists, they replace "
          "those of the config")
      ->type_name("FILE");
  command
      .add_option("--dtype", options.dtype,
                  "bf16: bf16 weights are multiplied in bf16 if the processor can; f32: all "
                  "products in f32")
      ->capture_default_str()
      ->check(offered({"bf16", "f32"}))
      ->type_name("TYPE");
  command
      .add_option("--max-pass-tokens", options.max_pass_tokens,
                  "the most tokens of one forward pass")
      ->check(in_range(1, 1 << 16))
      ->capture_default_str()
      ->type_name("N");
  command
      .add_option(
          "--threads", options.num_threads,
          "threads of a rank, at most 1024; 0, the default, means that the ranks of a machine "
          "share all its processors")
      ->check(in_range(0, 1024))
      ->type_name("N");
  add_rank_group(command, options);
}

}  // namespace c2r::cli
