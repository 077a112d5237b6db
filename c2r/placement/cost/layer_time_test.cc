// Tests of the predicted time of a layer against times that are computed by hand.
#include "c2r/placement/cost/layer_time.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

// 2 nodes of 2 ranks. Rank 0 sends 10 copies to rank 1 and 4 to rank 2; rank 3 sends 3 to rank 2.
Volume small_volume() {
  Volume volume{.num_tokens = 20, .link_copies = {4, 4}, .choices = {5, 20, 7, 20}};
  volume.link_copies(0, 0) = 1000;  // local copies take no time
  volume.link_copies(0, 1) = 10;
  volume.link_copies(0, 2) = 4;
  volume.link_copies(3, 2) = 3;
  return volume;
}

// Powers of two, so that every sum below is exact.
const Cluster kCluster = {.num_nodes = 2,
                          .ranks_per_node = 2,
                          .intra_node = {.bandwidth_bytes_per_s = 64, .latency_s = 1},
                          .inter_node = {.bandwidth_bytes_per_s = 16, .latency_s = 2},
                          .device_flop_per_s = 8.0};
const LayerTimeOptions kOptions = {
    .format = {.hidden = 8, .dispatch_element_bytes = 2, .combine_element_bytes = 4},
    .flop_per_choice = 4};

TEST(LayerTime, IsTheSlowestRankAndTheSlowestLink) {
  const PredictedLayerTime time = predict_layer_time(small_volume(), kCluster, kOptions);
  EXPECT_EQ(time.predicted_compute_s, 20 * 4 / 8.0);
  EXPECT_EQ(time.slowest_compute_rank, RankId{1});
  // A copy is 16 bytes there: intra 160 / 64 + 1 = 3.5, inter 64 / 16 + 2 = 6.
  EXPECT_EQ(time.predicted_dispatch_s, 6);
  // 32 bytes back: 6 and 10.
  EXPECT_EQ(time.predicted_combine_s, 10);
  EXPECT_EQ(time.predicted_total_s, 26);

  LayerTimeOptions overlapped = kOptions;
  overlapped.overlap = Overlap::kOverlapped;
  EXPECT_EQ(predict_layer_time(small_volume(), kCluster, overlapped).predicted_total_s, 16);
  overlapped.flop_per_choice = 8;
  EXPECT_EQ(predict_layer_time(small_volume(), kCluster, overlapped).predicted_total_s, 20);
}

TEST(LayerTime, AddsWhatARankReceivesFromAllOthers) {
  Volume volume{.link_copies = {4, 4}, .choices = {0, 0, 0, 0}};
  volume.link_copies(0, 2) = volume.link_copies(1, 2) = 4;
  EXPECT_EQ(predict_layer_time(volume, kCluster, kOptions).predicted_dispatch_s, 8 * 16 / 16.0 + 2);
}

TEST(LayerTime, OfAnIdleLayerIsZeroAndOfAFractionAFraction) {
  EXPECT_EQ(
      predict_layer_time({.link_copies = {4, 4}, .choices = {0, 0, 0, 0}}, kCluster, kOptions),
      PredictedLayerTime{});
  Volume volume = small_volume();
  volume.denominator = 2;
  const PredictedLayerTime half = predict_layer_time(volume, kCluster, kOptions);
  EXPECT_EQ(half.predicted_compute_s, 5);
  EXPECT_EQ(half.predicted_dispatch_s, 2 * 16 / 16.0 + 2);
}

TEST(LayerTime, OfAnotherBatchIsInProportion) {
  LayerTimeOptions options = kOptions;
  options.batch_tokens = 40;  // the volume is of 20
  const PredictedLayerTime twice = predict_layer_time(small_volume(), kCluster, options);
  EXPECT_EQ(twice.predicted_compute_s, 20);
  EXPECT_EQ(twice.predicted_dispatch_s, 8 * 16 / 16.0 + 2);
  EXPECT_EQ(twice.predicted_combine_s, 8 * 32 / 16.0 + 2);
  options.batch_tokens = 20;
  EXPECT_EQ(predict_layer_time(small_volume(), kCluster, options),
            predict_layer_time(small_volume(), kCluster, kOptions));
}

TEST(LayerTime, CountsTheScalesOfFp8) {
  LayerTimeOptions options = kOptions;
  options.format = with_fp8_dispatch({.hidden = 130});
  EXPECT_EQ(options.format.dispatch_copy_bytes(), 130 + 2 * 4);
  EXPECT_EQ(options.format.combine_copy_bytes(), 260);
  const PredictedLayerTime time = predict_layer_time(small_volume(), kCluster, options);
  EXPECT_EQ(time.predicted_dispatch_s, 4 * 138 / 16.0 + 2);
  EXPECT_EQ(time.predicted_combine_s, 4 * 260 / 16.0 + 2);
}

TEST(LayerTime, TakesTimeForEachMessage) {
  Cluster cluster = kCluster;
  cluster.inter_node.message_s = 8;
  LayerTimeOptions options = kOptions;
  // Rank 2 receives 4 copies from rank 0 over the slow link: one message, or four.
  EXPECT_EQ(predict_layer_time(small_volume(), cluster, options).predicted_dispatch_s,
            4 * 16 / 16.0 + 8 + 2);
  options.is_message_per_copy = true;
  EXPECT_EQ(predict_layer_time(small_volume(), cluster, options).predicted_dispatch_s,
            4 * 16 / 16.0 + 4 * 8 + 2);
  options.batch_tokens = 40;  // twice the volume's
  EXPECT_EQ(predict_layer_time(small_volume(), cluster, options).predicted_dispatch_s,
            8 * 16 / 16.0 + 8 * 8 + 2);
}

// Expert 0 is chosen by each of the 20 tokens on rank 1, expert 1 by half of them on rank 3.
TEST(LayerTime, ReadsTheWeightsOfTheExpertsThatTheBatchChooses) {
  Cluster cluster = kCluster;
  cluster.memory_bytes_per_s = 2.0;
  LayerTimeOptions options = kOptions;
  options.weight_bytes_per_expert = 100;
  options.flop_per_choice = 0.001;
  Matrix<std::int64_t> choices(2, 4);
  choices(0, 1) = 20;
  choices(1, 1) = choices(1, 3) = 10;
  options.batch_tokens = 2;
  const PredictedLayerTime time = predict_layer_time(small_volume(), cluster, options, choices);
  EXPECT_DOUBLE_EQ(time.predicted_compute_s, (1 + 1 - 0.5 * 0.5) * 100 / 2);
  EXPECT_EQ(time.slowest_compute_rank, RankId{1});
  options.batch_tokens = 0;
  EXPECT_EQ(predict_layer_time(small_volume(), cluster, options, choices).predicted_compute_s, 0);
  options.batch_tokens = 1000000;  // then the experts' work takes longer than reading
  options.flop_per_choice = 4;
  EXPECT_GT(predict_layer_time(small_volume(), cluster, options, choices).predicted_compute_s,
            2 * 100 / 2.0);
  EXPECT_EQ(error_of([&] { predict_layer_time(small_volume(), cluster, options); }),
            "the time of reading weights needs the choices of each expert on 4 ranks, not 0");
  cluster.memory_bytes_per_s.reset();
  EXPECT_EQ(error_of([&] { predict_layer_time(small_volume(), cluster, options, choices); }),
            "the time of reading weights needs the cluster's memory_bytes_per_s");
}

TEST(LayerTime, CountsAGatedExpert) {
  EXPECT_EQ(flop_of_gated_mlp(2048, 1408), 17301504.0);
}

TEST(LayerTime, NeedsTheDevicesRateAndTheRightCluster) {
  Cluster cluster = kCluster;
  cluster.device_flop_per_s.reset();
  EXPECT_EQ(error_of([&] { predict_layer_time(small_volume(), cluster, kOptions); }),
            "predicting a layer's time needs the cluster's device_flop_per_s");
  cluster = kCluster;
  cluster.num_nodes = 4;
  EXPECT_EQ(error_of([&] { predict_layer_time(small_volume(), cluster, kOptions); }),
            "the volume is of 4 ranks, but the cluster has 8");
  LayerTimeOptions options = kOptions;
  options.flop_per_choice = 0;
  EXPECT_EQ(error_of([&] { predict_layer_time(small_volume(), kCluster, options); }),
            "flop_per_choice is 0, but must be positive");
  EXPECT_EQ(parse_overlap(name_of(Overlap::kOverlapped)), Overlap::kOverlapped);
  EXPECT_EQ(error_of([] { parse_overlap("max"); }), "overlap is added or overlapped; not 'max'");
}

}  // namespace
}  // namespace c2r
