// `c2r tokenize`: prints the token ids of texts, to compare them with those of another program.
#include <fmt/format.h>

#include <iostream>
#include <iterator>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/tokenizer/tokenizer.h"

namespace c2r::cli {
namespace {

struct TokenizeOptions {
  std::string model;
  std::vector<std::string> inputs;
  bool leaves_out_template = false;
  bool is_json = false;
};

std::string read_input(const std::string& path) {
  if (path != "-") return read_text_file(path);
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void print_ids(const std::string& input, const std::vector<TokenId>& ids,
               const Tokenizer& tokenizer) {
  fmt::memory_buffer out;
  fmt::format_to(std::back_inserter(out), "{{\"input\":{},\"num_tokens\":{},\"ids\":[",
                 json_text(input), ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", index(ids[i]));
  }
  std::cout << fmt::to_string(out)
            << "],\"text\":" << json_text(tokenizer.decode(ids, SpecialTokens::kKeep)) << "}\n";
}

void print_table(const std::string& input, const std::vector<TokenId>& ids,
                 const Tokenizer& tokenizer) {
  std::cout << fmt::format("{}: {} tokens\n{:>9}  text\n", input, ids.size(), "id");
  for (const TokenId id : ids) {
    std::cout << fmt::format("{:>9}  {}\n", index(id),
                             json_text(tokenizer.decode({&id, 1}, SpecialTokens::kKeep)));
  }
}

void tokenize(const TokenizeOptions& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.model);
  for (const std::string& input : options.inputs) {
    const auto ids = tokenizer.encode(
        read_input(input), options.leaves_out_template ? Template::kNone : Template::kApply);
    (options.is_json ? print_ids : print_table)(input, ids, tokenizer);
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto* const command = app.add_subcommand("tokenize", "show the token ids of texts");
  auto options = std::make_shared<TokenizeOptions>();
  command
      ->add_option("model", options->model,
                   "folder of a checkpoint: tokenizer.json or tokenizer.model, and "
                   "tokenizer_config.json if there is one")
      ->required();
  command
      ->add_option("inputs", options->inputs, "text files, each with one text; - is standard input")
      ->required();
  command->add_flag("--no-template", options->leaves_out_template,
                    "leave out the special tokens that the model expects around a text");
  command->add_flag(
      "--json", options->is_json,
      "print one JSON object for each input: input, num_tokens, ids, and text, which is "
      "decoded from the ids");
  command->footer(
      "The ids are those of Hugging Face's tokenizers. Without --json, each token is on a line "
      "with its text; a token that is part of a character shows U+FFFD.\n"
      "Example:\n"
      "  c2r tokenize model text.txt");
  command->callback([options] { tokenize(*options); });
}

}  // namespace c2r::cli
