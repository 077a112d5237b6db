// The backward pass of a layer: the steps of the forward pass with the gradients of its sums, since
// dispatch and combine are each other's adjoint.
#include <algorithm>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/dispatch/pipeline_run_internal.h"

namespace c2r {
namespace {

// Factors of 1 for the rows of any chunk, in the memory of the rows.
class Ones {
 public:
  Ones(std::span<const Handle> handles, DeviceStream* stream) {
    std::int64_t most = 0;
    for (const Handle& handle : handles) most = std::max(most, handle.num_rows());
    const MatrixView<float> to = rows_.reshape(stream, most, 1);
    const std::vector<float> ones(std::size_t(most), 1.0F);
    if (most == 0) return;
    if (stream == nullptr) {
      std::ranges::copy(ones, to.data());
    } else {
      stream->upload(std::as_bytes(std::span(ones)), reinterpret_cast<std::byte*>(to.data()));
    }
  }
  std::span<const float> first(std::int64_t num_rows) const {
    return {rows_.view().data(), std::size_t(num_rows)};
  }

 private:
  LayerRows rows_;
};

class BackwardPass final : public PipelinePass {
 public:
  BackwardPass(const PassArguments& with, PipelineTimes& times, PhaseWatch& watch,
               const PipelineBackwardWork& work, KeptBatch& kept, const LayerGradients& gradients,
               DeviceStream* stream)
      : PipelinePass(with, times, watch),
        work_(work),
        kept_(kept),
        top_k_(kept.top_k),
        dweights_(gradients.dweights),
        stream_(stream),
        ones_(kept.handles, stream) {
    start_weights(gradients.topk_weights);
  }

 private:
  // Each row needs its weight. All chunks' travel at once, before the first rows.
  void start_weights(MatrixView<const float> topk_weights) {
    std::int64_t begin = 0;
    for (const Handle& of_tokens : kept_.handles) {
      const std::int64_t num_choices = of_tokens.num_tokens() * top_k_;
      choices_.push_back(of_tokens.choices());
      choices_.back().start_dispatch({topk_weights.data() + begin, num_choices, 1});
      begin += num_choices;
    }
  }

  void dispatch_own(std::int32_t chunk) override {
    const std::int64_t num_rows = handle(chunk).num_rows();
    weights_.reshape(stream_, num_rows, 1);
    choices(chunk).dispatch_own(weights_.view());
    choices(chunk).finish_dispatch(weights_.view());
    products_.reshape(stream_, num_rows, 1);
    drows_.reshape(stream_, num_rows, hidden());
    handle(chunk).dispatch_own(douts_.reshape(stream_, num_rows, hidden()));
  }
  void finish_dispatch(std::int32_t chunk) override {
    handle(chunk).finish_dispatch(douts_.view());
  }
  void compute(std::int32_t chunk, std::span<const std::int64_t> offsets) override {
    const auto num_rows = std::size_t(weights_.view().rows());
    handle(chunk).weigh_gradients({.first = offsets.front(),
                                   .end = offsets.back(),
                                   .outputs = kept_.outputs[std::size_t(chunk)].read(),
                                   .weights = {weights_.view().data(), num_rows},
                                   .gradients = douts_.view(),
                                   .products = {products_.view().data(), num_rows}});
    polling([&] {
      work_.experts(offsets, kept_.rows[std::size_t(chunk)].read(), douts_.read(), drows_.view());
    });
  }
  void start_combine(std::int32_t chunk) override {
    handle(chunk).start_combine(drows_.read(), ones_.first(handle(chunk).num_rows()));
    choices(chunk).start_combine(products_.read());
  }
  void combine_own(std::int32_t chunk) override {
    handle(chunk).combine_own(drows_.read());
    choices(chunk).combine_own(products_.read());
  }
  void finish_combine(std::int32_t chunk, std::int64_t first, MatrixView<float> dx) override {
    handle(chunk).finish_combine(dx);
    choices(chunk).finish_combine(
        {dweights_.data() + first * top_k_, handle(chunk).num_tokens() * top_k_, 1});
  }

  Handle& choices(std::int32_t chunk) { return choices_[std::size_t(chunk)]; }

  const PipelineBackwardWork& work_;
  KeptBatch& kept_;
  const std::int64_t top_k_;
  const MatrixView<float> dweights_;
  DeviceStream* const stream_;
  const Ones ones_;
  std::vector<Handle> choices_;  // of each chunk
  // Of the chunk that is computed: weights and their gradients, gradients of outputs and of rows.
  LayerRows weights_, products_, douts_, drows_;
};

}  // namespace

PipelineTimes Pipeline::run_backward(KeptBatch& kept, const LayerGradients& gradients,
                                     const PipelineBackwardWork& work) {
  std::int64_t num_tokens = 0;
  for (const Handle& handle : kept.handles) num_tokens += handle.num_tokens();
  const auto has_shape = [&](const auto& view, std::int64_t cols) {
    return view.rows() == num_tokens && view.cols() == cols;
  };
  C2R_REQUIRE(!kept.handles.empty() && kept.rows.size() == kept.handles.size(), kInvalidArgument,
              "a backward pass needs what a forward pass has kept; give run() the batch");
  C2R_REQUIRE(
      has_shape(gradients.dsum, kept.hidden) && has_shape(gradients.dx, kept.hidden) &&
          has_shape(gradients.topk_weights, kept.top_k) &&
          has_shape(gradients.dweights, kept.top_k),
      kInvalidArgument,
      "{}: dsum is {}x{}, dx {}x{}, topk_weights {}x{} and dweights {}x{}, but there are {} "
      "tokens of {} values and {} choices",
      kept.label, gradients.dsum.rows(), gradients.dsum.cols(), gradients.dx.rows(),
      gradients.dx.cols(), gradients.topk_weights.rows(), gradients.topk_weights.cols(),
      gradients.dweights.rows(), gradients.dweights.cols(), num_tokens, kept.hidden, kept.top_k);
  PipelineTimes times;
  PhaseWatch watch(waits_after_steps_ ? stream_ : nullptr);
  BackwardPass pass({.handles = kept.handles,
                     .x = gradients.dsum,
                     .sum = gradients.dx,
                     .local_work = work.local_work},
                    times, watch, work, kept, gradients, stream_);
  watch.add_to(times.handles);
  pass.run(pool_);
  return times;
}

}  // namespace c2r
