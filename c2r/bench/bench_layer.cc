// Runs and times the variants of a layer benchmark in turn.
#include "c2r/bench/bench_layer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <memory>

#include "c2r/bench/median.h"
#include "c2r/core/error.h"
#include "c2r/dispatch/chunks.h"
#include "c2r/experts/expert_compute.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

static_assert(std::size(kPipelinePhases) == kNumPhases);
constexpr std::string_view kPhaseNames[kNumPhases] = {
    "handles", "start_dispatch", "local_work",   "wait_dispatch", "finish_dispatch",
    "experts", "start_combine",  "wait_combine", "finish_combine"};

using Clock = std::chrono::steady_clock;
double seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}
std::int64_t nanoseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

// What a rank computes, whichever rows it is given.
class Compute {
 public:
  Compute(ThreadPool& pool, const LayerBenchOptions& options, const RandomExperts* experts)
      : options_(options), experts_(experts), gemm_(options.arithmetic, pool), mlps_(gemm_) {}

  void run_slots(std::span<const ExpertId> slots, std::span<const std::int64_t> offsets,
                 const GatheredRows& rows, MatrixView<float> out) {
    if (!options_.has_experts) {
      for (auto row = offsets.front(); row < offsets.back(); ++row) {
        rows.read_row(row, out.row(row));
      }
      return;
    }
    std::vector<const ExpertWeights*> experts;
    for (const ExpertId e : slots) {
      experts.push_back(e == kNoExpert ? nullptr : &experts_->expert(e));
    }
    CpuExperts(mlps_, experts).forward(offsets, rows, out);
  }

  // Adds the shared expert to `sum`.
  void run_shared(MatrixView<const float> x, MatrixView<float> sum) {
    if (!options_.has_experts || options_.shape.shared_intermediate == 0) return;
    shared_out_.reshape(x.rows(), x.cols());
    const ExpertRows group{&experts_->shared(), x, shared_out_};
    mlps_.run({&group, 1});
    for (std::int64_t t = 0; t < x.rows(); ++t) {
      for (std::int64_t c = 0; c < x.cols(); ++c) sum(t, c) += shared_out_(t, c);
    }
  }

 private:
  const LayerBenchOptions& options_;
  const RandomExperts* experts_;
  GroupedGemm gemm_;
  ExpertMlps mlps_;
  Matrix<float> shared_out_;
};

// A variant with its memory.
class Runner {
 public:
  Runner(Transport& transport, ThreadPool& pool, const LayerVariant& variant,
         const LayerBatch& batch, Compute& compute)
      : transport_(transport),
        variant_(variant),
        batch_(batch),
        compute_(compute),
        slots_(variant.placement.slots.row(std::int64_t(index(transport.rank())))),
        dispatcher_(transport, pool, variant.placement, variant.dispatch),
        pipeline_(pool, variant.num_chunks.value_or(1)),
        sum_(batch.x.rows(), batch.x.cols()) {}

  // Each phase apart: counts what is sent, checks it and the results.
  void check_and_count(VariantResult& result);
  // One round, from when all ranks are there. @returns when this one was done, and its phases
  Clock::duration run_once(PipelineTimes& times);
  // The same work without an exchange.
  Clock::duration compute_once();
  // From a run with one chunk, if the variant does not say how many. @returns the chunks of later
  // rounds
  std::int32_t choose_chunks(const PipelineTimes& times);

 private:
  std::vector<std::int64_t> sent_since(std::vector<std::int64_t>& before) const;
  void check_volume(const VariantResult& result);
  void check_results() const;

  Transport& transport_;
  const LayerVariant& variant_;
  const LayerBatch& batch_;
  Compute& compute_;
  std::span<const ExpertId> slots_;  // of this rank
  Dispatcher dispatcher_;
  Pipeline pipeline_;
  Matrix<float> sum_;
  // Of one handle for all tokens, for compute_once().
  std::vector<std::int64_t> offsets_, own_offsets_;
  Matrix<float> rows_, out_;
};

// What was sent to each rank since the last call.
std::vector<std::int64_t> Runner::sent_since(std::vector<std::int64_t>& before) const {
  const auto& now = transport_.sent().num_bytes;
  std::vector<std::int64_t> sent(now.size());
  std::ranges::transform(now, before, sent.begin(), std::minus{});
  before = now;
  return sent;
}

void Runner::check_and_count(VariantResult& result) {
  std::vector<std::int64_t> before = transport_.sent().num_bytes;
  Handle handle = dispatcher_.make_handle(batch_.topk_idx, batch_.topk_weights, 0, "check");
  const auto metadata = sent_since(before);
  offsets_.assign(handle.offsets().begin(), handle.offsets().end());
  own_offsets_.assign(handle.own_offsets().begin(), handle.own_offsets().end());
  rows_ = Matrix<float>(handle.num_rows(), batch_.x.cols());
  out_ = rows_;
  handle.start_dispatch(batch_.x);
  handle.dispatch_own(rows_);
  handle.finish_dispatch(rows_);
  const auto dispatch = sent_since(before);
  compute_.run_slots(slots_, offsets_, rows_, out_);
  compute_.run_slots(slots_, own_offsets_, rows_, out_);
  handle.start_combine(out_);
  handle.combine_own(out_);
  handle.finish_combine(sum_);
  const auto combine = sent_since(before);
  result.metadata_bytes = all_gather<std::int64_t>(transport_, metadata, "check");
  result.dispatch_bytes = all_gather<std::int64_t>(transport_, dispatch, "check");
  result.combine_bytes = all_gather<std::int64_t>(transport_, combine, "check");
  std::vector<std::int64_t> max_rows{handle.num_rows()};
  all_reduce(transport_, max_rows, Reduction::kMax, "check");
  result.max_rows = max_rows[0];
  check_volume(result);
  check_results();
}

// Each rank predicts the copies of its own tokens; together they are all.
void Runner::check_volume(const VariantResult& result) {
  const DispatchOptions& how = variant_.dispatch;
  TrafficModel traffic = how.traffic;
  traffic.homes = Homes::kSequences;
  ReachCounter counter(variant_.placement, traffic);
  counter.add(batch_.topk_idx,
              std::vector<RankId>(std::size_t(batch_.x.rows()), transport_.rank()));
  const Reach reach = counter.finish();
  const auto sum_of_ranks = [&](CopyMode mode) {
    Matrix<std::int64_t> copies = volume_of(reach, with_copy_mode(traffic, mode)).link_copies;
    all_reduce(transport_, copies.all(), Reduction::kSum, "check");
    return copies;
  };
  const auto there = sum_of_ranks(how.traffic.copy_mode);
  const auto back = how.sums_before_return ? there : sum_of_ranks(CopyMode::kPerExpert);
  const std::int64_t row_bytes = batch_.x.cols() * element_bytes(how.row_type);
  for (std::int64_t src = 0; src < there.rows(); ++src) {
    for (std::int64_t dst = 0; dst < there.cols(); ++dst) {
      if (src == dst) continue;
      C2R_REQUIRE(result.dispatch_bytes(src, dst) == there(src, dst) * row_bytes &&
                      result.combine_bytes(dst, src) == back(src, dst) * row_bytes,
                  kTransport,
                  "{}: {} bytes went from rank {} to rank {} and {} back, but {} and {} were "
                  "predicted",
                  variant_.name, result.dispatch_bytes(src, dst), src, dst,
                  result.combine_bytes(dst, src), there(src, dst) * row_bytes,
                  back(src, dst) * row_bytes);
    }
  }
}

// A token's experts, here. Rows of a batch do not depend on each other, so the outputs are the same
// bits; only the sum is in another order, and rows come back rounded: with m the sum of |weight x
// output| of an element, within 2 k 2^-24 m, and 2^-8 m for each of up to two roundings to bf16.
void Runner::check_results() const {
  constexpr std::int64_t kTokens = 4;
  const std::int64_t hidden = batch_.x.cols(), top_k = batch_.topk_idx.cols();
  const double bound = 2 * double(top_k) * 0x1p-24 +
                       (variant_.dispatch.row_type == ElementType::kBf16 ? 2.01 * 0x1p-8 : 0);
  Matrix<float> y(1, hidden);
  for (std::int64_t t = 0; t < std::min(kTokens, batch_.x.rows()); ++t) {
    std::vector<double> sum(static_cast<std::size_t>(hidden)), m = sum;
    for (std::int64_t k = 0; k < top_k; ++k) {
      const ExpertId expert = batch_.topk_idx(t, k);
      if (expert == kNoExpert) continue;
      const std::vector<std::int64_t> offsets{0, 1};
      compute_.run_slots({&expert, 1}, offsets, MatrixView<const float>(batch_.x).rows(t, t + 1),
                         y);
      for (std::size_t c = 0; c < sum.size(); ++c) {
        const double term = double{batch_.topk_weights(t, k)} * double{y(0, std::int64_t(c))};
        sum[c] += term, m[c] += std::abs(term);
      }
    }
    for (std::size_t c = 0; c < sum.size(); ++c) {
      const double actual = sum_(t, std::int64_t(c));
      C2R_REQUIRE(std::abs(actual - sum[c]) <= bound * m[c], kTransport,
                  "{}: value {} of token {} is {}, but {} in one process", variant_.name, c, t,
                  actual, sum[c]);
    }
  }
}

Clock::duration Runner::run_once(PipelineTimes& times) {
  std::ranges::fill(sum_.all(), 0.0F);
  barrier(transport_, variant_.name + " start");
  const auto start = Clock::now();
  if (!variant_.overlaps_shared) compute_.run_shared(batch_.x, sum_);
  const auto shared_end = Clock::now();
  const PipelineWork work{
      .experts = [&](auto offsets, const auto& rows,
                     auto out) { compute_.run_slots(slots_, offsets, rows, out); },
      .local_work =
          [&] {
            if (variant_.overlaps_shared) compute_.run_shared(batch_.x, sum_);
          }};
  times = pipeline_.run(dispatcher_, batch_.x, batch_.topk_idx, batch_.topk_weights, 0,
                        variant_.name, work, sum_);
  times.local_work += shared_end - start;
  return Clock::now() - start;
}

Clock::duration Runner::compute_once() {
  barrier(transport_, variant_.name + " compute");
  const auto start = Clock::now();
  compute_.run_shared(batch_.x, sum_);
  compute_.run_slots(slots_, offsets_, rows_, out_);
  compute_.run_slots(slots_, own_offsets_, rows_, out_);
  return Clock::now() - start;
}

std::int32_t Runner::choose_chunks(const PipelineTimes& times) {
  if (variant_.num_chunks) return *variant_.num_chunks;
  std::vector<std::int64_t> most{-nanoseconds(times.wait_dispatch + times.wait_combine),
                                 nanoseconds(times.experts)};
  all_reduce(transport_, most, Reduction::kMax, "times");
  std::vector<std::int64_t> num_rows{rows_.rows()};
  all_reduce(transport_, num_rows, Reduction::kSum, "times");
  pipeline_.set_num_chunks(choose_num_chunks(
      {.waited_s = -1e-9 * double(most[0]),
       .computed_s = 1e-9 * double(most[1]),
       .rows_per_expert = double(num_rows[0]) / double(variant_.placement.num_experts)}));
  return pipeline_.num_chunks();
}

void check_batch(const LayerBatch& batch, const LayerBenchOptions& options,
                 const RandomExperts* experts) {
  const auto& [x, topk_idx, topk_weights] = batch;
  const LayerShape& shape = options.shape;
  C2R_REQUIRE(
      x.cols() == shape.hidden && topk_idx.cols() == shape.top_k && topk_idx.rows() == x.rows() &&
          topk_weights.rows() == x.rows() && topk_weights.cols() == shape.top_k,
      kInvalidArgument,
      "the batch has {}x{} values, {}x{} choices and {}x{} weights, but the layer has hidden "
      "{} and top-{}",
      x.rows(), x.cols(), topk_idx.rows(), topk_idx.cols(), topk_weights.rows(),
      topk_weights.cols(), shape.hidden, shape.top_k);
  C2R_REQUIRE(options.num_rounds >= 1, kInvalidArgument, "num_rounds is {}, but must be at least 1",
              options.num_rounds);
  C2R_REQUIRE(experts != nullptr || !options.has_experts, kInvalidArgument,
              "there are no experts to compute with");
}

double slowest(Transport& transport, Clock::duration own) {
  std::vector<std::int64_t> time{nanoseconds(own)};
  all_reduce(transport, time, Reduction::kMax, "times");
  return double(time[0]) * 1e-9;
}

}  // namespace

std::span<const std::string_view> phase_names() {
  return kPhaseNames;
}

bool computes_experts(std::size_t phase) {
  const auto member = kPipelinePhases[phase];
  return member == &PipelineTimes::experts || member == &PipelineTimes::local_work;
}

std::vector<VariantResult> bench_layer(Transport& transport, ThreadPool& pool,
                                       const LayerBenchOptions& options,
                                       const RandomExperts* experts, const LayerBatch& batch,
                                       std::span<const LayerVariant> variants, Progress& progress) {
  check_batch(batch, options, experts);
  Compute compute(pool, options, experts);
  std::vector<std::unique_ptr<Runner>> runners;
  std::vector<VariantResult> results(variants.size());
  for (std::size_t v = 0; v < variants.size(); ++v) {
    runners.push_back(std::make_unique<Runner>(transport, pool, variants[v], batch, compute));
    runners[v]->check_and_count(results[v]);
  }
  // [variant][phase][round], of this rank
  std::vector<std::array<std::vector<double>, kNumPhases>> phases(variants.size());
  const std::int64_t num_runs = std::ssize(variants) * (options.num_rounds + 2);
  std::int64_t num_done = 0;
  for (std::int32_t round = -2; round < options.num_rounds; ++round) {  // two to warm up
    for (std::size_t v = 0; v < variants.size(); ++v) {
      progress.update(num_done++, num_runs);
      PipelineTimes times;
      const double total = slowest(transport, runners[v]->run_once(times));
      const double computed = slowest(transport, runners[v]->compute_once());
      if (round == -1) results[v].num_chunks = runners[v]->choose_chunks(times);
      if (round < 0) continue;
      results[v].seconds.push_back(total);
      results[v].compute_seconds.push_back(computed);
      for (std::size_t p = 0; p < kNumPhases; ++p) {
        phases[v][p].push_back(seconds(times.*kPipelinePhases[p]));
      }
    }
  }
  for (std::size_t v = 0; v < variants.size(); ++v) {
    std::vector<std::int64_t> own;
    for (const auto& rounds : phases[v]) own.push_back(std::int64_t(median(rounds) * 1e9));
    const auto all = all_gather<std::int64_t>(transport, own, "times");
    results[v].phase_seconds = Matrix<double>(all.rows(), all.cols());
    std::ranges::transform(all.all(), results[v].phase_seconds.all().begin(),
                           [](std::int64_t ns) { return double(ns) * 1e-9; });
  }
  return results;
}

}  // namespace c2r
