// `c2r inspect`: checks the folder of a model, or a file, and prints its contents.
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/commands/commands.h"
#include "c2r/cli/commands/inspect_file.h"
#include "c2r/cli/output.h"
#include "c2r/cli/printable.h"
#include "c2r/core/error.h"
#include "c2r/engine/model_sizes.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/model/model.h"

namespace c2r::cli {
namespace {

struct InspectOptions {
  std::string model, plan;
  bool is_json = false;
};

Json to_json(const ModelConfig& c, const ModelSizes& sizes, bool has_weights) {
  Json json = {{"family", c.family->name},
               {"model_type", c.family->model_type},
               {"num_layers", c.num_layers},
               {"hidden", c.hidden},
               {"num_heads", c.num_heads},
               {"num_kv_heads", c.num_kv_heads},
               {"head_dim", c.head_dim},
               {"vocab_size", c.vocab_size},
               {"max_positions", c.max_positions},
               {"moe_layers", c.moe_layers},
               {"num_experts", c.num_experts},
               {"top_k", c.top_k},
               {"intermediate", c.intermediate(0, 0)},
               {"shared_intermediate", c.shared_intermediate},
               {"dense_intermediate", c.dense_intermediate},
               {"weight_bytes", sizes.weight_bytes},
               {"expert_bytes", sizes.expert_bytes},
               {"bytes_per_token", sizes.bytes_per_token},
               {"kv_bytes_per_token", sizes.kv_bytes_per_token}};
  json["has_weights"] = has_weights;
  json["top_t"] = c.constraints.empty() ? Json(nullptr) : Json(c.constraints[0].top_t);
  return json;
}

std::string to_text(const ModelConfig& c, const ModelSizes& sizes, bool has_weights) {
  const auto mb = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  std::string text = fmt::format(
      "family       {} ({})\n"
      "layers       {}, hidden {}, vocabulary {}, positions {}\n"
      "attention    {} heads of {}, {} key-value heads\n"
      "experts      {} in each of {} layers, top-{}, intermediate {}\n",
      c.family->name, c.family->model_type, c.num_layers, c.hidden, c.vocab_size, c.max_positions,
      c.num_heads, c.head_dim, c.num_kv_heads, c.num_experts, c.num_moe_layers(), c.top_k,
      c.intermediate(0, 0));
  if (c.shared_intermediate > 0) {
    text += fmt::format("shared       one expert for every token, intermediate {}\n",
                        c.shared_intermediate);
  }
  if (c.dense_intermediate > 0) {
    text += fmt::format("dense        {} layers, intermediate {}\n",
                        c.num_layers - c.num_moe_layers(), c.dense_intermediate);
  }
  text += c.constraints.empty()
              ? "routing      unconstrained\n"
              : fmt::format("routing      among the first {} collaborators of the best expert\n",
                            c.constraints[0].top_t);
  text += fmt::format(
      "weights      {:.1f} MB, of which {:.1f} MB in routed experts\n"
      "a token      reads {:.1f} MB of weights; its keys and values take {:.3f} MB in bf16\n",
      mb(sizes.weight_bytes), mb(sizes.expert_bytes), mb(sizes.bytes_per_token),
      mb(sizes.kv_bytes_per_token));
  if (!has_weights) {
    text += fmt::format(
        "no weights   the folder has no *.safetensors; c2r would run this model, with weights in "
        "{}\n",
        c.weight_bytes == 4 ? "f32" : "bf16 or f16");
  }
  return text;
}

void print(const InspectOptions& options, const ModelConfig& config, const ModelSizes& sizes,
           bool has_weights) {
  std::cout << (options.is_json ? json_text(to_json(config, sizes, has_weights), 1) + "\n"
                                : to_text(config, sizes, has_weights));
}

// What config.json alone says.
void inspect_config(const InspectOptions& options) {
  ModelConfig config = read_config(options.model);
  if (!options.plan.empty()) (void)apply_plan(read_plan(options.plan), options.plan, config);
  print(options, config, sizes_of(config), /*has_weights=*/false);
}

void inspect(const InspectOptions& options) {
  if (const auto file = describe_file(options.model)) {
    C2R_REQUIRE(options.plan.empty(), kInvalidArgument,
                "--plan is for the folder of a model, and '{}' is {}", options.model, file->what);
    std::cout << (options.is_json ? json_text(description_json(options.model, *file), 1) + "\n"
                                  : description_text(options.model, *file));
    return;
  }
  if (path_exists(options.model) && !has_weight_files(options.model)) {
    inspect_config(options);
    return;
  }
  const Model model(options.model, options.plan);
  if (!model.checkpoint().note().empty()) {
    std::cerr << printable("c2r inspect: " + model.checkpoint().note()) << "\n";
  }
  print(options, model.config(), sizes_of(model), /*has_weights=*/true);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto* const command = app.add_subcommand(
      "inspect", "check a model, a trace, a plan or another file, and print what is in it");
  auto options = std::make_shared<InspectOptions>();
  command
      ->add_option("model", options->model,
                   "a folder with config.json and, if there are weights, *.safetensors; or a file "
                   "of c2r or of another program")
      ->required();
  command
      ->add_option("--plan", options->plan,
                   "a plan; if it has collaborator lists, they replace those of the config")
      ->type_name("FILE");
  command->add_flag("--json", options->is_json, "print one JSON object");
  command->footer(
      "In the folder of a model, every tensor's name, type and shape is checked against "
      "config.json. Of a file it is said what it is: a trace, statistics, a plan, what a command "
      "printed with --json, or what another program wrote and c2r import reads.\n"
      "Example:\n"
      "  c2r inspect tiny_model\n"
      "  c2r inspect trace.safetensors");
  command->callback([options] { inspect(*options); });
}

}  // namespace c2r::cli
