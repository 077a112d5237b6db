// Tests that ranks notice when one runs another model, plan or options.
#include "c2r/engine/ranks/agreement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <stdexcept>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;

const std::filesystem::path kTinyModel =
    std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / "qwen2_moe";

// What a rank is about to run.
struct OwnRun {
  std::filesystem::path folder = kTinyModel;
  Arithmetic arithmetic = Arithmetic::kF32;
  ExpertParallelOptions options;
};

// What each of three ranks says if `change` was made on the last.
void expect_error(const std::function<void(OwnRun&)>& change, const std::string& message) {
  const Cluster cluster{.num_nodes = 1, .ranks_per_node = 3};
  run_in_process(3, [&](Transport& transport) {
    OwnRun run;
    run.options.dispatch.traffic.cluster = cluster;
    if (transport.rank() == RankId{2}) change(run);
    const Model model(run.folder);
    const ModelConfig& config = model.config();
    if (run.options.placements.empty()) {
      run.options.placements = contiguous_placements({.num_experts = config.num_experts,
                                                      .top_k = config.top_k,
                                                      .layer_indices = config.moe_layers},
                                                     cluster);
    }
    EXPECT_EQ(error_of([&] {
                check_same_run(transport, fingerprint_of_run(model, run.arithmetic, run.options));
              }),
              message);
  });
}

std::string rank_2_has(const std::string& what) {
  return "rank 2 has " + what + " than rank 0; give all ranks the same";
}

std::filesystem::path copy_of_the_model() {
  const auto folder = testing::path_in_empty_folder("model");
  std::filesystem::copy(kTinyModel, folder, std::filesystem::copy_options::recursive);
  return folder;
}

TEST(CheckSameRun, TakesTheSameOnAllRanks) {
  const auto folder = copy_of_the_model();
  expect_error([&](OwnRun& run) { run.folder = folder; }, "no error");
}

TEST(CheckSameRun, TellsAnotherConfig) {
  const auto folder = copy_of_the_model();
  Json config = read_json_file(folder / "config.json");
  config["rope_theta"] = 777.0;
  write_text_file(folder / "config.json", json_text(config));
  expect_error([&](OwnRun& run) { run.folder = folder; }, rank_2_has("another config.json"));
}

TEST(CheckSameRun, TellsOtherWeights) {
  const auto folder = copy_of_the_model();
  const auto shard = folder / "model-00002-of-00002.safetensors";
  std::string bytes = read_text_file(shard);
  bytes.back() ^= 1;
  write_text_file(shard, bytes);
  expect_error([&](OwnRun& run) { run.folder = folder; }, rank_2_has("other weights"));
}

TEST(CheckSameRun, TellsAnotherPlacement) {
  const auto swapped = [](OwnRun& run) {
    Placement placement{.num_experts = 10, .slots = {3, 4}};
    for (int e = 0; e < 12; ++e) placement.slots.all()[std::size_t(e)] = ExpertId{(e + 1) % 10};
    run.options.placements = {placement, placement};
  };
  expect_error(swapped, rank_2_has("another plan"));
}

TEST(CheckSameRun, TellsOtherOptions) {
  const std::string message = rank_2_has("another copy mode, row type, dtype or number of chunks");
  expect_error([](OwnRun& run) { run.arithmetic = Arithmetic::kBf16; }, message);
  expect_error([](OwnRun& run) { run.options.num_chunks = 2; }, message);
  expect_error([](OwnRun& run) { run.options.dispatch.traffic.copy_mode = CopyMode::kPerExpert; },
               message);
  expect_error([](OwnRun& run) { run.options.dispatch.row_type = ElementType::kF32; }, message);
}

// Runs a step that fails on `failing` of three ranks, and a collective afterwards. The message of
// each rank.
std::vector<std::string> agreed_errors(const std::vector<std::int32_t>& failing) {
  std::vector<std::string> messages(3);
  run_in_process(3, [&](Transport& transport) {
    const auto me = static_cast<std::int32_t>(index(transport.rank()));
    std::string& message = messages[static_cast<std::size_t>(me)];
    try {
      agree_on_errors(transport, "start", [&] {
        C2R_REQUIRE(std::ranges::count(failing, me) == 0, kInvalidFile, "shard {} is missing", me);
      });
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidFile);
      message = e.what();
    }
    std::int64_t sum = me;
    all_reduce(transport, {&sum, 1}, Reduction::kSum, "afterwards");
    EXPECT_EQ(sum, 3);
  });
  return messages;
}

TEST(AgreeOnErrors, ThrowsTheErrorOfTheLowestRankOnEveryRank) {
  EXPECT_EQ(agreed_errors({}), std::vector<std::string>(3, ""));
  EXPECT_EQ(agreed_errors({0}), std::vector<std::string>(3, "shard 0 is missing"));
  EXPECT_EQ(agreed_errors({2}), std::vector<std::string>(3, "shard 2 is missing"));
  EXPECT_EQ(agreed_errors({2, 1}), std::vector<std::string>(3, "shard 1 is missing"));
}

TEST(AgreeOnErrors, MakesAnErrorOfEveryException) {
  run_in_process(2, [](Transport& transport) {
    EXPECT_EQ(error_of([&] {
                agree_on_errors(transport, "start", [&] {
                  if (transport.rank() == RankId{1}) throw std::bad_alloc();
                });
              }),
              "out of memory");
    EXPECT_EQ(error_of([&] {
                agree_on_errors(transport, "start", [&] {
                  if (transport.rank() == RankId{0}) throw std::logic_error("an\nempty list");
                });
              }),
              "an\\nempty list");
  });
}

TEST(AgreeOnErrors, DoesNotWaitForOthersIfTheTransportHasFailed) {
  EXPECT_EQ(error_of([] {
              run_in_process(2, [](Transport& transport) {
                agree_on_errors(transport, "start", [&] {
                  if (transport.rank() == RankId{1}) C2R_THROW(kTransport, "the link is down");
                });
              });
            }),
            "rank 1: the link is down");
}

}  // namespace
}  // namespace c2r
