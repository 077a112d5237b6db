// The sizes that a config alone predicts are those of the checkpoints of every family.
#include "c2r/engine/model_sizes.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

TEST(ModelSizes, OfAConfigAreThoseOfItsCheckpoint) {
  for (const Family& family : families()) {
    const Model model(std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" /
                      family.model_type);
    ModelConfig config = model.config();
    const Dtype dtype = model.checkpoint().tensor("lm_head.weight").dtype;
    config.weight_bytes = dtype_bytes(dtype);
    const ModelSizes found = sizes_of(config), expected = sizes_of(model);
    EXPECT_EQ(found.weight_bytes, expected.weight_bytes) << family.name;
    EXPECT_EQ(found.expert_bytes, expected.expert_bytes) << family.name;
    EXPECT_EQ(found.bytes_per_token, expected.bytes_per_token) << family.name;
    EXPECT_EQ(found.kv_bytes_per_token, expected.kv_bytes_per_token) << family.name;
  }
}

}  // namespace
}  // namespace c2r
