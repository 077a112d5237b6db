// What a fake device computes experts with: the kernels' own bodies and products by definition, on
// a stream that runs late; and a rounded reference, value by value.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "c2r/core/bf16.h"
#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/core/exp.h"
#include "c2r/experts/cuda/device_experts.h"
#include "c2r/experts/cuda/expert_kernels-inl.h"

namespace c2r::testing {

class HostExpertLauncher final : public ExpertLauncher {
 public:
  void launch(const ExpertKernel& kernel, DeviceStream& stream) override {
    dynamic_cast<FakeStream&>(stream).enqueue([kernel] {
      constexpr std::int64_t kThreads = 3;
      const auto run = [](const auto& body) {
        for (std::int64_t block = 0; block < body.num_blocks(); ++block) {
          for (std::int64_t thread = 0; thread < kThreads; ++thread) {
            body.run(block, {.first = thread, .step = kThreads});
          }
        }
      };
      std::visit(run, kernel.kernel);
    });
  }
};

/// Calls of BLAS by definition: column-major, with sums in f32 in ascending order of k.
class HostProducts final : public GroupedProducts {
 public:
  void run(ProductKind kind, std::span<const DeviceProduct> products,
           DeviceStream& stream) override {
    dynamic_cast<FakeStream&>(stream).enqueue(
        [kind, copied = std::vector(products.begin(), products.end())] {
          for (const DeviceProduct& product : copied) {
            multiply(kind, blas_product(kind, product), product.adds);
          }
        });
  }

 private:
  static float at(const std::byte* matrix, bool is_transposed, std::int64_t ld, std::int64_t row,
                  std::int64_t col) {
    return load_element(matrix, ElementType::kBf16,
                        is_transposed ? row * ld + col : col * ld + row);
  }
  static void multiply(ProductKind kind, const BlasProduct& call, bool adds) {
    const ElementType type =
        kind == ProductKind::kTransposedTimes ? ElementType::kF32 : ElementType::kBf16;
    for (std::int64_t col = 0; col < call.n; ++col) {
      for (std::int64_t row = 0; row < call.m; ++row) {
        const std::int64_t to = col * call.ldc + row;
        float sum = 0;
        for (std::int64_t k = 0; k < call.k; ++k) {
          sum += at(call.a, call.transposes_a, call.lda, row, k) *
                 at(call.b, call.transposes_b, call.ldb, k, col);
        }
        store_element(call.c, type, to, adds ? load_element(call.c, type, to) + sum : sum);
      }
    }
  }
};

inline float as_bf16(float value) {
  return to_float(to_bf16(value));
}

/// The gradients of an expert's weights in f32.
struct RoundedGradients {
  Matrix<float> gate, up;  // [intermediate, hidden]
  Matrix<float> down;      // [hidden, intermediate]
};

/// The formulas of device_experts.h, value by value, with sums in ascending order.
class RoundedExpert {
 public:
  explicit RoundedExpert(const ExpertWeights& weights)
      : gate_(rounded(weights.gate)), up_(rounded(weights.up)), down_(rounded(weights.down)) {}

  RoundedGradients no_gradients() const {
    return {
        {gate_.rows(), gate_.cols()}, {gate_.rows(), gate_.cols()}, {down_.rows(), down_.cols()}};
  }
  /// @param x [hidden] @returns y
  std::vector<float> forward(std::span<const float> x) const {
    const Inner inner = compute_inner(rounded(x));
    return rounded(times(down_, inner.h));
  }
  /// What the rows of one call give: their dx, and the sums of their gradients.
  Matrix<float> backward(const Matrix<float>& x, const Matrix<float>& dy,
                         RoundedGradients& sums) const {
    Matrix<float> dx(x.rows(), x.cols());
    RoundedGradients of_call = no_gradients();
    for (std::int64_t row = 0; row < x.rows(); ++row) {
      const std::vector<float> in = rounded(x.row(row)), out = rounded(dy.row(row));
      const Inner inner = compute_inner(in);
      const std::vector<float> dh = rounded(transposed_times(down_, out));
      std::vector<float> dgate(dh.size()), dup(dh.size());
      for (std::size_t i = 0; i < dh.size(); ++i) {
        const float g = inner.gate[i], s = sigmoid(g);
        dup[i] = as_bf16(dh[i] * (g * s));
        dgate[i] = as_bf16(dh[i] * inner.up[i] * (s * (1.0F + g * (1.0F - s))));
      }
      add_outer(out, inner.h, of_call.down);
      add_outer(dgate, in, of_call.gate);
      add_outer(dup, in, of_call.up);
      std::ranges::copy(rounded(sum_of_both(dgate, dup)), dx.row(row).begin());
    }
    for (const auto part :
         {&RoundedGradients::gate, &RoundedGradients::up, &RoundedGradients::down}) {
      const auto to = (sums.*part).all(), from = (of_call.*part).all();
      for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
    }
    return dx;
  }

 private:
  struct Inner {
    std::vector<float> gate, up, h;
  };

  static Matrix<float> rounded(const RowsView& view) {
    Matrix<float> to(view.rows(), view.cols());
    for (std::int64_t r = 0; r < view.rows(); ++r) view.read_row(r, to.row(r));
    std::ranges::transform(to.all(), to.all().begin(), as_bf16);
    return to;
  }
  static std::vector<float> rounded(std::span<const float> from) {
    std::vector<float> to(from.size());
    std::ranges::transform(from, to.begin(), as_bf16);
    return to;
  }
  static std::vector<float> times(const Matrix<float>& weights, std::span<const float> x) {
    std::vector<float> y(static_cast<std::size_t>(weights.rows()));
    for (std::int64_t r = 0; r < weights.rows(); ++r) {
      float& sum = y[static_cast<std::size_t>(r)];
      for (std::size_t c = 0; c < x.size(); ++c) sum += weights.row(r)[c] * x[c];
    }
    return y;
  }
  static std::vector<float> transposed_times(const Matrix<float>& weights,
                                             std::span<const float> y) {
    std::vector<float> x(static_cast<std::size_t>(weights.cols()));
    for (std::int64_t r = 0; r < weights.rows(); ++r) {
      for (std::size_t c = 0; c < x.size(); ++c) {
        x[c] += y[static_cast<std::size_t>(r)] * weights.row(r)[c];
      }
    }
    return x;
  }
  // G^T dg + U^T du as one sum: gate and up are one matrix on the device.
  std::vector<float> sum_of_both(std::span<const float> dgate, std::span<const float> dup) const {
    std::vector<float> x = transposed_times(gate_, dgate);
    for (std::int64_t r = 0; r < up_.rows(); ++r) {
      for (std::size_t c = 0; c < x.size(); ++c) {
        x[c] += dup[static_cast<std::size_t>(r)] * up_.row(r)[c];
      }
    }
    return x;
  }
  static void add_outer(std::span<const float> dy, std::span<const float> x, Matrix<float>& sum) {
    for (std::int64_t r = 0; r < sum.rows(); ++r) {
      for (std::size_t c = 0; c < x.size(); ++c) {
        sum.row(r)[c] += dy[static_cast<std::size_t>(r)] * x[c];
      }
    }
  }
  Inner compute_inner(std::span<const float> x) const {
    Inner inner{rounded(times(gate_, x)), rounded(times(up_, x)), {}};
    for (std::size_t i = 0; i < inner.gate.size(); ++i) {
      const float g = inner.gate[i];
      inner.h.push_back(as_bf16(g * sigmoid(g) * inner.up[i]));
    }
    return inner;
  }

  const Matrix<float> gate_, up_, down_;
};

}  // namespace c2r::testing
