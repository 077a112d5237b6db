// Rows of f32 that a layer keeps, in host memory or in that of a device.
#pragma once

#include <cstdint>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/core/matrix.h"

namespace c2r {

class LayerRows {
 public:
  /// Takes memory for rows, whose content is unspecified, instead of those before. On a device,
  /// tasks that still use those come first in the stream.
  /// @param stream null: in host memory; else must outlive this object
  MatrixView<float> reshape(DeviceStream* stream, std::int64_t num_rows, std::int64_t hidden) {
    if (stream == nullptr) {
      on_host_.reshape(num_rows, hidden);
      view_ = on_host_;
    } else {
      on_device_ = DeviceBuffer(*stream, num_rows * hidden * std::int64_t{sizeof(float)});
      view_ = {reinterpret_cast<float*>(on_device_.data()), num_rows, hidden};
    }
    return view_;
  }
  MatrixView<float> view() const { return view_; }
  MatrixView<const float> read() const { return {view_.data(), view_.rows(), view_.cols()}; }

 private:
  Matrix<float> on_host_;   // [num_rows, hidden]
  DeviceBuffer on_device_;  // the same
  MatrixView<float> view_;
};

}  // namespace c2r
