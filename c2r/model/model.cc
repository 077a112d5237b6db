// Opens the files of a model folder in order.
#include "c2r/model/model.h"

namespace c2r {

Model::Model(const std::filesystem::path& folder, const std::filesystem::path& plan)
    : folder_(folder) {
  config_ = std::make_unique<ModelConfig>(read_config(folder));
  if (!plan.empty()) {
    plan_ = read_plan(plan);
    has_replaced_lists_ = apply_plan(*plan_, plan.string(), *config_);
  }
  checkpoint_ = std::make_unique<Checkpoint>(folder);
  weights_ = std::make_unique<ModelWeights>(find_weights(*config_, *checkpoint_));
}

}  // namespace c2r
