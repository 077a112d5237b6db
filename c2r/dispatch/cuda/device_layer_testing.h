// A layer of a test whose rows are in the memory of a device: a Pipeline whose experts gather, or
// the same steps with copies of the rows.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/dispatch/cuda/device_row_mover.h"
#include "c2r/dispatch/cuda/row_kernels-inl.h"
#include "c2r/dispatch/pipeline.h"
#include "c2r/dispatch/pipeline_steps.h"
#include "c2r/dispatch/testing_internal.h"

namespace c2r::testing {

/// A matrix of f32 in the memory of a device.
class DeviceMatrix {
 public:
  DeviceMatrix(DeviceStream& stream, std::int64_t rows, std::int64_t cols)
      : stream_(&stream), buffer_(stream, rows * cols * 4), rows_(rows), cols_(cols) {}
  DeviceMatrix(DeviceStream& stream, const Matrix<float>& from)
      : DeviceMatrix(stream, from.rows(), from.cols()) {
    stream.upload(std::as_bytes(from.all()), buffer_.data());
  }
  MatrixView<float> view() const {
    return {reinterpret_cast<float*>(buffer_.data()), rows_, cols_};
  }
  Matrix<float> download() const {
    Matrix<float> to(rows_, cols_);
    const PinnedBuffer pinned(*stream_, rows_ * cols_ * 4);
    stream_->copy_to_pinned(buffer_.bytes(), pinned.data());
    stream_->record()->synchronize();
    if (!to.all().empty()) std::memcpy(to.all().data(), pinned.data(), to.all().size_bytes());
    return to;
  }

 private:
  DeviceStream* stream_;
  DeviceBuffer buffer_;
  std::int64_t rows_, cols_;
};

/// Enqueues what computes the experts: out[r] = expert of r's slot (row r).
using RowExperts =
    std::function<void(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                       MatrixView<float> out, DeviceStream& stream)>;

class DeviceLayer {
 public:
  // @param gathers whether experts read rows where they were received
  DeviceLayer(Transport& transport, const ExchangeProblem& problem, DeviceStream& stream,
              RowMover& mover, RowExperts experts, bool gathers)
      : stream_(stream),
        experts_(std::move(experts)),
        gathers_(gathers),
        batch_(problem.batches[index(transport.rank())]),
        dispatcher_(transport, mover, problem.placement, problem.options),
        x_(stream, batch_.x),
        sum_(stream, Matrix<float>(batch_.x.rows(), problem.hidden)) {}

  Matrix<float> run(std::int32_t num_chunks) {
    gathers_ ? run_pipeline(num_chunks) : run_steps(num_chunks);
    return sum_.download();
  }

 private:
  void run_pipeline(std::int32_t num_chunks) {
    Pipeline pipeline(stream_, num_chunks);
    const PipelineWork work{.experts = [this](const auto& offsets, const auto& rows, auto out) {
      experts_(offsets, rows, out, stream_);
    }};
    pipeline.run(dispatcher_, read(x_.view()), batch_.topk_idx, batch_.topk_weights,
                 batch_.first_token, "layer 3", work, sum_.view());
  }
  void run_steps(std::int32_t num_chunks) {
    if (num_chunks == 1) {  // as ranks without a device call it
      handles_.push_back(dispatcher_.make_handle(batch_.topk_idx, batch_.topk_weights,
                                                 batch_.first_token, "layer 3"));
    } else {
      handles_ = dispatcher_.make_handles(batch_.topk_idx, batch_.topk_weights, batch_.first_token,
                                          num_chunks, "layer 3");
    }
    std::int64_t first = 0;
    for (const Handle& handle : handles_) {
      first_token_.push_back(std::exchange(first, first + handle.num_tokens()));
      rows_.emplace_back(stream_, handle.num_rows(), batch_.x.cols());
      out_.emplace_back(stream_, handle.num_rows(), batch_.x.cols());
    }
    for (const PipelineStep& step : pipeline_steps(num_chunks)) run_step(step);
  }
  MatrixView<float> tokens(const DeviceMatrix& of, std::int32_t chunk) const {
    const auto first = first_token_[std::size_t(chunk)];
    return of.view().rows(first, first + handles_[std::size_t(chunk)].num_tokens());
  }
  static MatrixView<const float> read(MatrixView<float> view) {
    return {view.data(), view.rows(), view.cols()};
  }
  void compute(std::size_t chunk, std::span<const std::int64_t> offsets) {
    experts_(offsets, rows_[chunk].view(), out_[chunk].view(), stream_);
  }
  void run_step(const PipelineStep& step) {
    const auto chunk = std::size_t(step.chunk);
    Handle& handle = handles_[chunk];
    switch (step.kind) {
      case StepKind::kStartDispatch:
        return handle.start_dispatch(read(tokens(x_, step.chunk)));
      case StepKind::kDispatchOwn:
        return handle.dispatch_own(rows_[chunk].view());
      case StepKind::kComputeOwn:
        return compute(chunk, handle.own_offsets());
      case StepKind::kWaitDispatch:
        return handle.wait();
      case StepKind::kFinishDispatch:
        return handle.finish_dispatch(rows_[chunk].view());
      case StepKind::kComputeOthers:
        return compute(chunk, handle.offsets());
      case StepKind::kStartCombine:
        return handle.start_combine(read(out_[chunk].view()));
      case StepKind::kCombineOwn:
        return handle.combine_own(read(out_[chunk].view()));
      case StepKind::kFinishCombines:
        for (std::int32_t of = 0; of <= step.chunk; ++of) {
          handles_[std::size_t(of)].finish_combine(tokens(sum_, of));
        }
        return;
      case StepKind::kLocalWork:
      case StepKind::kFinishCombinesIfBack:
        return;
    }
  }

  DeviceStream& stream_;
  const RowExperts experts_;
  const bool gathers_;
  const TokenBatch& batch_;
  Dispatcher dispatcher_;
  DeviceMatrix x_, sum_;
  std::vector<Handle> handles_;
  std::vector<std::int64_t> first_token_;
  std::vector<DeviceMatrix> rows_, out_;  // of each chunk
};

}  // namespace c2r::testing
