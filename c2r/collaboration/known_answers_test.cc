// Numbers that others published, or that were computed from their data independently of this code.
#include <gtest/gtest.h>

#include <numeric>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/testing.h"
#include "c2r/import/import.h"

namespace c2r {
namespace {

using testing::real_data;

constexpr std::int64_t kPairsPerLayer = 409'600;  // 204,800 tokens of top-2, both ways

std::filesystem::path llama_moe_matrix(const std::string& name) {
  return real_data("c2r-official/llama_moe_3_5b_2_8_" + name + "_i64.npy");
}

CollaborationStatistics llama_moe(const std::string& name) {
  return import_statistics({.format = "coactivation",
                            .inputs = {llama_moe_matrix(name)},
                            .model = "LLaMA-MoE-v1-3.5B (2/8)",
                            .top_k = 2});
}

struct PublishedEntropy {
  const char* matrix;
  double mean_normalized_entropy;  // over layers and experts, to four digits
};

TEST(LlamaMoeOnRealData, HasThePublishedEntropies) {
  C2R_SKIP_WITHOUT(llama_moe_matrix("base"));
  constexpr PublishedEntropy kPublished[] = {
      {"base", 0.6219},   {"topt_1", 0.0772}, {"topt_2", 0.3465}, {"topt_3", 0.4789},
      {"topt_4", 0.5533}, {"topt_5", 0.5941}, {"topt_6", 0.6167}};
  for (const auto& [matrix, entropy] : kPublished) {
    const ModelMetrics metrics = model_metrics(llama_moe(matrix));
    ASSERT_TRUE(metrics.collaborators.has_value());
    // Half a unit of the last published digit.
    EXPECT_NEAR(metrics.collaborators->normalized_entropy, entropy, 0.00005) << matrix;
  }
}

TEST(LlamaMoeOnRealData, CountsEveryPairOnce) {
  C2R_SKIP_WITHOUT(llama_moe_matrix("base"));
  for (const char* const matrix :
       {"base", "topt_1", "topt_2", "topt_3", "topt_4", "topt_5", "topt_6"}) {
    const auto statistics = llama_moe(matrix);
    ASSERT_EQ(statistics.num_layers(), 32);
    for (const CollaborationMatrix& counts : statistics.coactivation) {
      std::int64_t pairs = 0;
      for (std::int64_t a = 0; a < counts.rows(); ++a) {
        const auto row = counts.row(a);
        pairs += std::reduce(row.begin(), row.end()) - counts(a, a);
      }
      EXPECT_EQ(pairs, kPairsPerLayer) << matrix;
    }
  }
  EXPECT_EQ(llama_moe("base").coactivation[0](0, 3), 15105);
}

// Every token chooses 4 of 32, so each layer's loads add up to 4 times the tokens, and rows of
// pairs to 3 times the load; the counts of the parts of the trace add up to those of the whole.
TEST(GptOssOnRealData, IsCountedConsistently) {
  const auto ids = real_data("traces/gpt-oss-20b/expert_ids_u8.npy.xz");
  C2R_SKIP_WITHOUT(ids);
  const auto path = testing::temporary_path("trace.safetensors");
  import_file({.format = "npy",
               .inputs = {ids},
               .output = path,
               .model = "gpt-oss-20b",
               .num_experts = 32,
               .sequences = real_data("traces/gpt-oss-20b/sequences.csv")});
  const Trace trace(path);
  EXPECT_EQ(trace.num_tokens(), 215'438);
  EXPECT_EQ(std::ssize(trace.sequence_starts()), 703);
  NoProgress progress;
  const auto statistics = count_collaboration(trace, 2, progress);
  for (std::size_t layer = 0; layer < statistics.coactivation.size(); ++layer) {
    const CollaborationMatrix& counts = statistics.coactivation[layer];
    std::int64_t choices = 0;
    for (std::int64_t e = 0; e < 32; ++e) {
      const auto row = counts.row(e);
      EXPECT_EQ(std::reduce(row.begin(), row.end()), 4 * counts(e, e));
      choices += counts(e, e);
    }
    EXPECT_EQ(choices, 4 * trace.num_tokens());
  }
  CollaborationMatrix first_layer(32, 32);
  add_collaboration(trace.topk_idx(0, 0, 100'000), first_layer);
  add_collaboration(trace.topk_idx(0, 100'000, trace.num_tokens()), first_layer);
  EXPECT_EQ(statistics.coactivation[0], first_layer);
}

}  // namespace
}  // namespace c2r
