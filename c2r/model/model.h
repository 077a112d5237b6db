// An opened model folder: its config.json, generation_config.json, its checkpoint, and its weights.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "c2r/model/checkpoint.h"
#include "c2r/model/config.h"
#include "c2r/model/weights.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// Opening maps the weights without reading them: pages are read when they are used, and the kernel
/// may drop them again. Memory: the weights once, as page cache.
class Model {
 public:
  /// @param plan the file of a plan whose collaborator lists, if any, replace those of the config;
  ///        empty: no plan
  /// @throws Error(kInvalidFile), Error(kUnsupported), naming the file and the key or tensor
  explicit Model(const std::filesystem::path& folder, const std::filesystem::path& plan = {});

  const std::filesystem::path& folder() const { return folder_; }
  const ModelConfig& config() const { return *config_; }
  const ModelWeights& weights() const { return *weights_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  /// @returns the plan that the model was opened with; null if there is none
  const Plan* plan() const { return plan_ ? &*plan_ : nullptr; }
  /// @returns whether lists of the plan replaced lists of the config
  bool has_replaced_lists() const { return has_replaced_lists_; }

 private:
  // On the heap, so that views and references stay valid when the model is moved.
  std::filesystem::path folder_;
  std::unique_ptr<ModelConfig> config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ModelWeights> weights_;
  std::optional<Plan> plan_;
  bool has_replaced_lists_ = false;
};

}  // namespace c2r
