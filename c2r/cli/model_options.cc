#include "c2r/cli/model_options.h"

#include "c2r/cli/app.h"
#include "c2r/core/error.h"
#include "c2r/io/file.h"

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

std::vector<std::int32_t> token_ids(const Json& value, const ModelConfig& config,
                                    std::string_view place) {
  std::vector<std::int32_t> ids;
  for (const Json& id : json_array(value, "the list of tokens", place)) {
    ids.push_back(
        static_cast<std::int32_t>(json_integer(id, 0, config.vocab_size - 1, "a token", place)));
  }
  return ids;
}

JsonLines::JsonLines(const std::string& path) : path_(path), text_(read_text_file(path)) {}

std::optional<Json> JsonLines::next() {
  while (begin_ < text_.size()) {
    const std::size_t end = std::min(text_.find('\n', begin_), text_.size());
    const std::string_view line = std::string_view(text_).substr(begin_, end - begin_);
    begin_ = end + 1;
    ++line_;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) return parse_json(line, place());
  }
  return std::nullopt;
}

std::string JsonLines::place() const {
  return fmt::format("{}:{}", path_, line_);
}

}  // namespace c2r::cli
