// The forward pass of a layer, and the checks of both passes.
#include "c2r/dispatch/pipeline.h"

#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/dispatch/pipeline_run_internal.h"

namespace c2r {
namespace {

class ForwardPass final : public PipelinePass {
 public:
  // @param kept where rows and outputs stay; without `keeps`, only its handles are used
  ForwardPass(const PassArguments& with, PipelineTimes& times, PhaseWatch& watch,
              const PipelineWork& work, KeptBatch& kept, bool keeps, LayerRows& out,
              DeviceStream* stream)
      : PipelinePass(with, times, watch),
        work_(work),
        kept_(kept),
        keeps_(keeps),
        last_out_(out),
        stream_(stream) {}

 private:
  // Where no backward pass follows, experts read rows where they were received.
  void dispatch_own(std::int32_t chunk) override {
    const std::int64_t num_rows = handle(chunk).num_rows();
    if (!keeps_) {
      out_ = last_out_.reshape(stream_, num_rows, hidden());
      rows_ = handle(chunk).dispatch_own();
      return;
    }
    out_ = kept_.outputs[std::size_t(chunk)].reshape(stream_, num_rows, hidden());
    const auto rows = kept_.rows[std::size_t(chunk)].reshape(stream_, num_rows, hidden());
    handle(chunk).dispatch_own(rows);
    rows_ = rows;
  }
  void finish_dispatch(std::int32_t chunk) override {
    if (!keeps_) {
      rows_ = handle(chunk).finish_dispatch();
    } else {
      handle(chunk).finish_dispatch(kept_.rows[std::size_t(chunk)].view());
    }
  }
  void compute(std::int32_t, std::span<const std::int64_t> offsets) override {
    polling([&] { work_.experts(offsets, rows_, out_); });
  }
  void start_combine(std::int32_t chunk) override { handle(chunk).start_combine(results()); }
  void combine_own(std::int32_t chunk) override { handle(chunk).combine_own(results()); }
  void finish_combine(std::int32_t chunk, std::int64_t, MatrixView<float> sum) override {
    handle(chunk).finish_combine(sum);
  }
  MatrixView<const float> results() const { return {out_.data(), out_.rows(), out_.cols()}; }

  const PipelineWork& work_;
  KeptBatch& kept_;
  const bool keeps_;
  LayerRows& last_out_;
  DeviceStream* const stream_;
  GatheredRows rows_;      // of the chunk that is computed
  MatrixView<float> out_;  // the same
};

}  // namespace

PipelineTimes& PipelineTimes::operator+=(const PipelineTimes& other) {
  for (const auto phase : kPipelinePhases) this->*phase += other.*phase;
  return *this;
}

Pipeline::Pipeline(ThreadPool& pool, std::int32_t num_chunks) : pool_(&pool) {
  set_num_chunks(num_chunks);
}

Pipeline::Pipeline(DeviceStream& compute, std::int32_t num_chunks) : stream_(&compute) {
  set_num_chunks(num_chunks);
}

void Pipeline::set_num_chunks(std::int32_t num_chunks) {
  C2R_REQUIRE(num_chunks > 0, kInvalidArgument, "num_chunks is {}, but must be positive",
              num_chunks);
  num_chunks_ = num_chunks;
}

PipelineTimes Pipeline::run(Dispatcher& dispatcher, MatrixView<const float> x,
                            MatrixView<const ExpertId> topk_idx,
                            MatrixView<const float> topk_weights, std::int64_t first_token,
                            const std::string& label, const PipelineWork& work,
                            MatrixView<float> sum, KeptBatch* kept) {
  C2R_REQUIRE(x.rows() == topk_idx.rows() && sum.rows() == x.rows() && sum.cols() == x.cols(),
              kInvalidArgument,
              "{}: x is {}x{} and sum is {}x{}, but there are choices of {} tokens", label,
              x.rows(), x.cols(), sum.rows(), sum.cols(), topk_idx.rows());
  PipelineTimes times;
  PhaseWatch watch(waits_after_steps_ ? stream_ : nullptr);
  KeptBatch own;
  KeptBatch& batch = kept == nullptr ? own : *kept;
  batch = {.label = label, .top_k = topk_idx.cols(), .hidden = x.cols()};
  batch.handles = dispatcher.make_handles(topk_idx, topk_weights, first_token, num_chunks_, label);
  if (kept != nullptr) {
    batch.rows.resize(batch.handles.size());
    batch.outputs.resize(batch.handles.size());
  }
  watch.add_to(times.handles);
  ForwardPass pass({.handles = batch.handles, .x = x, .sum = sum, .local_work = work.local_work},
                   times, watch, work, batch, kept != nullptr, out_, stream_);
  pass.run(pool_);
  return times;
}

}  // namespace c2r
