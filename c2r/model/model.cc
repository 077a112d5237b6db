// Opens the files of a model folder in order.
#include "c2r/model/model.h"

#include "c2r/core/error.h"
#include "c2r/io/file.h"

namespace c2r {

Model::Model(const std::filesystem::path& folder, const std::filesystem::path& plan)
    : folder_(folder) {
  std::error_code ignored;  // what it would say, path_exists() has said
  C2R_REQUIRE(path_exists(folder) && std::filesystem::is_directory(folder, ignored), kInvalidFile,
              "'{}' is not a folder with a model", folder.string());
  const auto config_path = folder / "config.json";
  config_ = std::make_unique<ModelConfig>(
      parse_config(read_json_file(config_path), config_path.string()));
  if (!plan.empty()) {
    plan_ = read_plan(plan);
    has_replaced_lists_ = apply_plan(*plan_, plan.string(), *config_);
  }
  checkpoint_ = std::make_unique<Checkpoint>(folder);
  weights_ = std::make_unique<ModelWeights>(find_weights(*config_, *checkpoint_));
}

}  // namespace c2r
