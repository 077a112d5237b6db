// The bodies of the kernels that say which rows a rank sends for its tokens: one source for devices
// and for the tests on the host.
//
// A *bin* is where a choice is sent: a rank, or in per-expert mode a slot of a rank, in the order
// of ranks and slots. A *tile* is kRouteTile consecutive tokens. Rows are numbered by bin, then by
// token: each tile counts its copies and choices for each bin, the counts are summed up, and each
// tile writes its own from there on. So there are no atomics, and the order is that of RowPlan.
//
// Grid: num_threads() threads in blocks of kRouteThreads, one thread for each item. No shared
// memory. A thread of CountRoutes and PlaceRoutes reads all choices of its tile; threads of a warp
// read the same ones, so they come from the caches but once.
//   kernel         one thread for each  reads                            writes
//   CountRoutes    tile and bin         4 top_k a token                  8
//   CountReturns   tile                 4 top_k a token                  4
//   ScanTiles      bin, and one more    12 a tile                        12 a tile, 16
//   ScanBins       one in all           16 a bin                         16 a bin
//   PlaceRoutes    tile and bin         4 top_k a token                  4 a copy, 8 a choice
//   PlaceReturns   tile                 8 to 12 top_k a token            8 a token, 4 or 8 a return
#pragma once

#include <cstdint>
#include <variant>

#include "c2r/core/cuda/host_device.h"

namespace c2r {

inline constexpr std::int64_t kRouteTile = 64;
inline constexpr int kRouteThreads = 256;

/// What the kernels read and write. All addresses are of the device.
struct RouteKernelTask {
  const std::int32_t* topk_idx = nullptr;  // [num_tokens, top_k], distinct in a token; -1: none
  const float* topk_weights = nullptr;     // [num_tokens, top_k]
  std::int64_t num_tokens = 0, top_k = 0;
  const std::int32_t* bin_of_expert = nullptr;  // [num_experts]
  std::int64_t num_bins = 0;
  bool copies_each_choice = false;  // per-expert: a token may be sent several times to a bin's rank
  bool returns_each_choice = false;  // a row comes back for each choice, not for each copy

  // Counts; after the scans, how many come before.
  std::int32_t* tile_copies = nullptr;     // [num_tiles, num_bins]
  std::int32_t* tile_choices = nullptr;    // [num_tiles, num_bins]
  std::int32_t* tile_returns = nullptr;    // [num_tiles]
  std::int64_t* copy_offsets = nullptr;    // [num_bins + 1]
  std::int64_t* choice_offsets = nullptr;  // [num_bins + 1]

  // As in RowPlan, of the copies of this rank's tokens.
  std::int32_t* send_item = nullptr;       // [num_sent]
  std::int32_t* send_choice = nullptr;     // [num_sent_choices]
  std::int64_t* return_offsets = nullptr;  // [num_tokens + 1]
  std::int32_t* return_row = nullptr;
  float* return_weight = nullptr;  // of each return, if one comes back for each choice

  std::int32_t* row_of_choice =
      nullptr;  // [num_tokens, top_k], which of return_row is the choice's

  std::int64_t num_tiles() const { return (num_tokens + kRouteTile - 1) / kRouteTile; }
  C2R_HOST_DEVICE std::int64_t end_of_tile(std::int64_t tile) const {
    const std::int64_t end = (tile + 1) * kRouteTile;
    return end < num_tokens ? end : num_tokens;
  }
  /// @returns the bin of a choice, or -1
  C2R_HOST_DEVICE std::int32_t bin(std::int64_t token, std::int64_t k) const {
    const std::int32_t expert = topk_idx[token * top_k + k];
    return expert < 0 ? -1 : bin_of_expert[expert];
  }
  /// @returns the smallest bin of a token above `last`, or num_bins
  C2R_HOST_DEVICE std::int64_t next_bin(std::int64_t token, std::int64_t last) const {
    std::int64_t next = num_bins;
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::int64_t of_choice = bin(token, k);
      if (of_choice > last && of_choice < next) next = of_choice;
    }
    return next;
  }
};

/// Calls body(token, k, is_copy) for each choice of a tile's tokens for a bin, in their order;
/// is_copy: the choice is the first of its copy.
template <class Body>
C2R_HOST_DEVICE inline void for_each_choice_of_bin(const RouteKernelTask& task, std::int64_t tile,
                                                   std::int64_t bin, const Body& body) {
  for (std::int64_t token = tile * kRouteTile; token < task.end_of_tile(tile); ++token) {
    bool has_copy = false;
    for (std::int64_t k = 0; k < task.top_k; ++k) {
      if (task.bin(token, k) != bin) continue;
      body(token, k, task.copies_each_choice || !has_copy);
      has_copy = true;
    }
  }
}

/// tile_copies and tile_choices.
struct CountRoutes {
  RouteKernelTask task;

  std::int64_t num_threads() const { return task.num_tiles() * task.num_bins; }
  C2R_HOST_DEVICE void run(std::int64_t thread) const {
    std::int32_t copies = 0, choices = 0;
    for_each_choice_of_bin(task, thread / task.num_bins, thread % task.num_bins,
                           [&](std::int64_t, std::int64_t, bool is_copy) {
                             copies += is_copy ? 1 : 0;
                             ++choices;
                           });
    task.tile_copies[thread] = copies;
    task.tile_choices[thread] = choices;
  }
};

/// tile_returns.
struct CountReturns {
  RouteKernelTask task;

  std::int64_t num_threads() const { return task.num_tiles(); }
  C2R_HOST_DEVICE void run(std::int64_t tile) const {
    std::int32_t returns = 0;
    for (std::int64_t token = tile * kRouteTile; token < task.end_of_tile(tile); ++token) {
      if (task.returns_each_choice) {
        for (std::int64_t k = 0; k < task.top_k; ++k) returns += task.bin(token, k) >= 0 ? 1 : 0;
      } else {
        for (auto bin = task.next_bin(token, -1); bin < task.num_bins;
             bin = task.next_bin(token, bin)) {
          ++returns;
        }
      }
    }
    task.tile_returns[tile] = returns;
  }
};

/// Replaces each count by the sum of those before it, from tile to tile; the totals of bin b become
/// copy_offsets[b + 1] and choice_offsets[b + 1]. The last thread does the same for returns, whose
/// total becomes return_offsets[num_tokens].
struct ScanTiles {
  RouteKernelTask task;

  std::int64_t num_threads() const { return task.num_bins + 1; }
  C2R_HOST_DEVICE static std::int64_t scan(std::int32_t* counts, std::int64_t num_tiles,
                                           std::int64_t stride) {
    std::int32_t sum = 0;
    for (std::int64_t tile = 0; tile < num_tiles; ++tile) {
      const std::int32_t count = counts[tile * stride];
      counts[tile * stride] = sum;
      sum += count;
    }
    return sum;
  }
  C2R_HOST_DEVICE void run(std::int64_t bin) const {
    const std::int64_t num_tiles = (task.num_tokens + kRouteTile - 1) / kRouteTile;
    if (bin == task.num_bins) {
      task.return_offsets[task.num_tokens] = scan(task.tile_returns, num_tiles, 1);
      return;
    }
    task.copy_offsets[bin + 1] = scan(task.tile_copies + bin, num_tiles, task.num_bins);
    task.choice_offsets[bin + 1] = scan(task.tile_choices + bin, num_tiles, task.num_bins);
  }
};

/// Makes the totals of bins offsets.
struct ScanBins {
  RouteKernelTask task;

  std::int64_t num_threads() const { return 1; }
  C2R_HOST_DEVICE void run(std::int64_t) const {
    task.copy_offsets[0] = task.choice_offsets[0] = 0;
    for (std::int64_t bin = 0; bin < task.num_bins; ++bin) {
      task.copy_offsets[bin + 1] += task.copy_offsets[bin];
      task.choice_offsets[bin + 1] += task.choice_offsets[bin];
    }
  }
};

/// send_item, send_choice and row_of_choice.
struct PlaceRoutes {
  RouteKernelTask task;

  std::int64_t num_threads() const { return task.num_tiles() * task.num_bins; }
  C2R_HOST_DEVICE void run(std::int64_t thread) const {
    const std::int64_t bin = thread % task.num_bins;
    std::int64_t copy = task.copy_offsets[bin] + task.tile_copies[thread];
    std::int64_t choice = task.choice_offsets[bin] + task.tile_choices[thread];
    for_each_choice_of_bin(
        task, thread / task.num_bins, bin, [&](std::int64_t token, std::int64_t k, bool is_copy) {
          const std::int64_t of_token = token * task.top_k + k;
          if (is_copy) task.send_item[copy++] = static_cast<std::int32_t>(token);
          task.send_choice[choice++] = static_cast<std::int32_t>(of_token);
          task.row_of_choice[of_token] =
              static_cast<std::int32_t>((task.returns_each_choice ? choice : copy) - 1);
        });
  }
};

/// return_offsets, return_row and return_weight: choices in their order, or copies in the order of
/// bins.
struct PlaceReturns {
  RouteKernelTask task;

  std::int64_t num_threads() const { return task.num_tiles(); }
  C2R_HOST_DEVICE void run(std::int64_t tile) const {
    std::int64_t place = task.tile_returns[tile];
    for (std::int64_t token = tile * kRouteTile; token < task.end_of_tile(tile); ++token) {
      task.return_offsets[token] = place;
      if (task.returns_each_choice) {
        place = add_choices(token, place);
      } else {
        place = add_copies(token, place);
      }
    }
  }

 private:
  C2R_HOST_DEVICE std::int64_t add_choices(std::int64_t token, std::int64_t place) const {
    for (std::int64_t k = 0; k < task.top_k; ++k) {
      if (task.bin(token, k) < 0) continue;
      task.return_row[place] = task.row_of_choice[token * task.top_k + k];
      task.return_weight[place++] = task.topk_weights[token * task.top_k + k];
    }
    return place;
  }
  C2R_HOST_DEVICE std::int64_t add_copies(std::int64_t token, std::int64_t place) const {
    for (auto bin = task.next_bin(token, -1); bin < task.num_bins;
         bin = task.next_bin(token, bin)) {
      for (std::int64_t k = 0; k < task.top_k; ++k) {
        if (task.bin(token, k) != bin) continue;
        task.return_row[place++] = task.row_of_choice[token * task.top_k + k];
        break;
      }
    }
    return place;
  }
};

/// A kernel with its arguments.
struct RouteKernel {
  std::variant<CountRoutes, CountReturns, ScanTiles, ScanBins, PlaceRoutes, PlaceReturns> kernel;
};

}  // namespace c2r
