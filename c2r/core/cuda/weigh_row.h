// The product of a row with the gradient of its weighted sum, and that gradient weighted: one
// source for devices and for the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/row_values.h"
#include "c2r/core/cuda/warp.h"
#include "c2r/core/element.h"

namespace c2r {

/// weighted = weight x gradient, by one warp.
/// @param row, gradient, weighted [width] of `type`; `weighted` may be `gradient`
/// @returns <row, gradient> in f32 to all lanes, summed in the order of
///          RowMover::weigh_gradients(), with and without vectors
template <int kVector, class Warp>
C2R_HOST_DEVICE float weigh_row(const Warp& warp, const std::byte* row, const std::byte* gradient,
                                float weight, ElementType type, std::int64_t width,
                                std::byte* weighted) {
  typename Warp::template Lanes<float> products;
  warp.each([&](int lane) {
    float product = 0;
    for (std::int64_t c = std::int64_t{lane} * kRowVector; c < width;
         c += std::int64_t{kWarpLanes} * kRowVector) {
      for (std::int64_t v = c; v < c + kRowVector && v < width; v += kVector) {
        const auto values = load_values<kVector>(row, type, v);
        auto gradients = load_values<kVector>(gradient, type, v);
        for (int i = 0; i < kVector; ++i) {
          product += values.v[i] * gradients.v[i];
          gradients.v[i] = weight * gradients.v[i];
        }
        store_values(weighted, type, v, gradients);
      }
    }
    products[lane] = product;
  });
  return warp.sum_of_neighbours(products, kWarpLanes);
}

}  // namespace c2r
