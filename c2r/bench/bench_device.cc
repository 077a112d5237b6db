// Runs and times the variants of a layer on devices in turn.
#include "c2r/bench/bench_device.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "c2r/bench/bench_layer.h"
#include "c2r/bench/median.h"
#include "c2r/core/error.h"
#include "c2r/dispatch/pipeline.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

using DeviceClock = std::chrono::steady_clock;

double seconds_since(DeviceClock::time_point start) {
  return std::chrono::duration<double>(DeviceClock::now() - start).count();
}

// The largest value of all ranks.
double largest_of_ranks(Transport& transport, double value) {
  std::vector<std::int64_t> all{std::int64_t(value * 1e9)};
  all_reduce(transport, all, Reduction::kMax, "device times");
  return double(all[0]) * 1e-9;
}

// A matrix in device memory.
template <class T>
class OnDevice {
 public:
  OnDevice(DeviceStream& stream, const Matrix<T>& from)
      : rows_(from.rows()),
        cols_(from.cols()),
        buffer_(stream, std::int64_t(from.all().size_bytes())) {
    stream.upload(std::as_bytes(from.all()), buffer_.data());
  }
  MatrixView<T> view() const { return {reinterpret_cast<T*>(buffer_.data()), rows_, cols_}; }
  MatrixView<const T> read() const { return {view().data(), rows_, cols_}; }
  // Rows [0, num_rows), after all tasks of the stream so far.
  Matrix<T> download(DeviceStream& stream, std::int64_t num_rows) const {
    Matrix<T> to(num_rows, cols_);
    const std::size_t num_bytes = to.all().size_bytes();
    const PinnedBuffer pinned(stream, std::int64_t(num_bytes));
    stream.copy_to_pinned(buffer_.bytes().first(num_bytes), pinned.data());
    stream.record()->synchronize();
    if (num_bytes > 0) std::memcpy(to.all().data(), pinned.data(), num_bytes);
    return to;
  }

 private:
  std::int64_t rows_, cols_;
  DeviceBuffer buffer_;
};

// Of a product of two square matrices, whose values do not matter but must not be NaN.
double product_flop_per_s(BenchDevice& on, std::int64_t size) {
  DeviceStream& stream = *on.compute;
  const Matrix<std::uint16_t> ones(size, size, 0x3f80);  // 1.0 in bf16
  const OnDevice a(stream, ones), b(stream, ones), out(stream, ones);
  const auto bytes = [](const OnDevice<std::uint16_t>& of) {
    return reinterpret_cast<std::byte*>(of.view().data());
  };
  const DeviceProduct product{
      .a = bytes(a), .b = bytes(b), .out = bytes(out), .m = size, .n = size, .k = size};
  constexpr int kProducts = 10, kWarmUp = 3;
  DeviceClock::time_point start;
  for (int i = 0; i < kWarmUp + kProducts; ++i) {
    if (i == kWarmUp) {
      stream.record()->synchronize();
      start = DeviceClock::now();
    }
    on.products->run(ProductKind::kTimesTransposed, {&product, 1}, stream);
  }
  stream.record()->synchronize();
  return kProducts * 2.0 * std::pow(double(size), 3) / seconds_since(start);
}

// A variant with its memory.
class DeviceRunner {
 public:
  DeviceRunner(Transport& transport, const LayerVariant& variant, const LayerBatch& batch,
               DeviceExperts& experts, BenchDevice& on)
      : transport_(transport),
        variant_(variant),
        batch_(batch),
        experts_(experts),
        stream_(*on.compute),
        mover_(stream_, *on.network, *on.row_launcher),
        dispatcher_(transport, mover_, variant.placement, variant.dispatch),
        pipeline_(stream_, variant.num_chunks.value_or(transport.ep_size() > 1 ? 2 : 1)),
        x_(stream_, batch.x),
        sum_(stream_, Matrix<float>(batch.x.rows(), batch.x.cols())) {}

  // One round, from when all ranks are there until this rank's device is done.
  double run_once(bool waits_after_steps, PipelineTimes& times);
  // The sums of the first tokens of one round.
  Matrix<float> first_sums(std::int64_t num_tokens);
  void count(const LayerShape& shape, const DeviceRates& rates, RouteLauncher& launcher,
             DeviceVariantResult& result);

 private:
  // Rows that leave this rank, or stay on it, and bytes of them in the types in which they are.
  std::pair<std::int64_t, std::int64_t> count_sent(RouteLauncher& launcher);

  Transport& transport_;
  const LayerVariant& variant_;
  const LayerBatch& batch_;
  DeviceExperts& experts_;
  DeviceStream& stream_;
  DeviceRowMover mover_;
  Dispatcher dispatcher_;
  Pipeline pipeline_;
  const OnDevice<float> x_, sum_;
};

double DeviceRunner::run_once(bool waits_after_steps, PipelineTimes& times) {
  pipeline_.set_waits_after_steps(waits_after_steps);
  const PipelineWork work{.experts = [this](auto offsets, const auto& rows, auto out) {
    experts_.forward(offsets, rows, out);
  }};
  stream_.record()->synchronize();
  barrier(transport_, variant_.name + " start");
  const auto start = DeviceClock::now();
  times = pipeline_.run(dispatcher_, x_.read(), batch_.topk_idx, batch_.topk_weights, 0,
                        variant_.name, work, sum_.view());
  stream_.record()->synchronize();
  return seconds_since(start);
}

Matrix<float> DeviceRunner::first_sums(std::int64_t num_tokens) {
  const Matrix<float> zeros(batch_.x.rows(), batch_.x.cols());
  stream_.upload(std::as_bytes(zeros.all()), reinterpret_cast<std::byte*>(sum_.view().data()));
  PipelineTimes times;
  (void)run_once(false, times);
  return sum_.download(stream_, num_tokens);
}

std::pair<std::int64_t, std::int64_t> DeviceRunner::count_sent(RouteLauncher& launcher) {
  const OnDevice idx(stream_, batch_.topk_idx);
  const OnDevice weights(stream_, batch_.topk_weights);
  DeviceRouteMaker maker(variant_.placement, variant_.dispatch, transport_.rank(), stream_,
                         launcher);
  const DeviceRoutes routes = maker.make(idx.read(), weights.read());
  const auto me = index(transport_.rank());
  const std::int64_t num_sent = routes.send_offsets.back(),
                     own = routes.send_offsets[me + 1] - routes.send_offsets[me];
  return {num_sent,
          batch_.x.cols() * ((num_sent - own) * element_bytes(variant_.dispatch.row_type) +
                             own * element_bytes(ElementType::kF32))};
}

void DeviceRunner::count(const LayerShape& shape, const DeviceRates& rates, RouteLauncher& launcher,
                         DeviceVariantResult& result) {
  const Handle handle =
      dispatcher_.make_handle(batch_.topk_idx, batch_.topk_weights, 0, variant_.name + " count");
  const auto with_rows = [](std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
    std::int64_t num = 0;
    for (std::size_t s = 0; s + 1 < a.size(); ++s) num += a[s] != a[s + 1] || b[s] != b[s + 1];
    return num;
  };
  const std::int64_t expert_bytes = std::int64_t{2} * 3 * shape.hidden * shape.intermediate;
  const std::int64_t row_bytes = shape.hidden * element_bytes(ElementType::kF32);
  const auto [num_sent, sent_bytes] = count_sent(launcher);
  std::vector<std::int64_t> most{handle.num_rows(),
                                 with_rows(handle.offsets(), handle.own_offsets()) * expert_bytes +
                                     2 * batch_.x.rows() * row_bytes,
                                 num_sent * row_bytes + sent_bytes,
                                 2 * batch_.x.rows() * row_bytes + sent_bytes};
  all_reduce(transport_, most, Reduction::kMax, "device counts");
  result.num_chunks = pipeline_.num_chunks();
  result.max_rows = most[0];
  result.busiest_flop = 6.0 * double(most[0]) * double(shape.hidden) * double(shape.intermediate);
  result.least_bytes = double(most[1]);
  result.gather_bytes = double(most[2]), result.returns_bytes = double(most[3]);
  result.bound_s = std::max(result.busiest_flop / rates.product_flop_per_s,
                            result.least_bytes / rates.copy_bytes_per_s);
}

// The layer's sums of the first tokens, by the experts of the host.
Matrix<float> sums_on_host(const LayerProblem& problem, const LayerBatch& batch,
                           std::int64_t num_tokens) {
  ThreadPool pool(1);
  GroupedGemm gemm(Arithmetic::kF32, pool);
  ExpertMlps mlps(gemm);
  Matrix<float> sums(num_tokens, batch.x.cols()), out(1, batch.x.cols());
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < batch.topk_idx.cols(); ++k) {
      const ExpertId expert = batch.topk_idx(t, k);
      if (expert == kNoExpert) continue;
      const ExpertRows rows{&problem.experts->expert(expert),
                            MatrixView<const float>(batch.x).rows(t, t + 1), out};
      mlps.run({&rows, 1});
      add_weighted(out.row(0), batch.topk_weights(t, k), sums.row(t));
    }
  }
  return sums;
}

// With v = 2^-8 for a rounding to bf16, each value of h is off by up to 7.4 v of its magnitude
// (device_experts_testing.h), and of random signs; a random matrix changes the length of such a
// vector at most about 2.3 times as much as that of h. With two roundings more, rows are within 19
// v of their length, while those of other experts are more than their length away.
void check_sums(const std::string& variant, const Matrix<float>& got,
                const Matrix<float>& expected) {
  for (std::int64_t t = 0; t < got.rows(); ++t) {
    double distance = 0, length = 0;
    for (std::int64_t c = 0; c < got.cols(); ++c) {
      const double difference = double{got(t, c)} - double{expected(t, c)};
      distance += difference * difference;
      length += double{expected(t, c)} * double{expected(t, c)};
    }
    C2R_REQUIRE(std::sqrt(distance) <= 19 * 0x1p-8 * std::sqrt(length), kTransport,
                "{}: token {} is {} away from the result of the host, whose length is {}", variant,
                t, std::sqrt(distance), std::sqrt(length));
  }
}

// The experts of each placement on this rank, made once.
class ExpertsOfPlacements {
 public:
  ExpertsOfPlacements(const LayerProblem& problem, RankId rank, BenchDevice& on)
      : problem_(problem), rank_(rank), on_(on) {}

  DeviceExperts& of(const Placement& placement) {
    const auto slots = placement.slots.row(std::int64_t(index(rank_)));
    for (const Made& made : made_) {
      if (std::ranges::equal(made.slots, slots)) return *made.experts;
    }
    std::vector<const ExpertWeights*> weights;
    for (const ExpertId e : slots) {
      weights.push_back(e == kNoExpert ? nullptr : &problem_.experts->expert(e));
    }
    made_.push_back({{slots.begin(), slots.end()},
                     std::make_unique<DeviceExperts>(*on_.compute, *on_.products,
                                                     *on_.expert_launcher, weights)});
    return *made_.back().experts;
  }

 private:
  struct Made {
    std::vector<ExpertId> slots;
    std::unique_ptr<DeviceExperts> experts;
  };

  const LayerProblem& problem_;
  const RankId rank_;
  BenchDevice& on_;
  std::vector<Made> made_;
};

// Routing of random logits, and the routes of its choices.
void time_routing(Transport& transport, const DeviceBenchOptions& options,
                  const LayerProblem& problem, std::int64_t num_tokens, BenchDevice& on,
                  DeviceBenchResult& result) {
  const LayerShape& shape = problem.shape;
  DeviceStream& stream = *on.compute;
  Matrix<float> logits(num_tokens, shape.num_experts);
  std::mt19937 rng(1);
  for (float& v : logits.all()) v = float(rng()) * 0x1p-30F;
  const OnDevice on_device(stream, logits);
  const OnDevice idx(stream, Matrix<ExpertId>(num_tokens, shape.top_k));
  const OnDevice weights(stream, Matrix<float>(num_tokens, shape.top_k));
  DeviceRouter router({.top_k = shape.top_k}, shape.num_experts, stream, *on.select_launcher);
  const LayerVariant& asked = problem.variants.front();
  DeviceRouteMaker maker(asked.placement, asked.dispatch, transport.rank(), stream,
                         *on.route_launcher);
  std::vector<double> routing, routes;
  for (std::int32_t round = -2; round < options.num_rounds; ++round) {
    stream.record()->synchronize();
    auto start = DeviceClock::now();
    router.route_into(on_device.read(), idx.view(), weights.view());
    stream.record()->synchronize();
    const double of_routing = seconds_since(start);
    start = DeviceClock::now();
    (void)maker.make(idx.read(), weights.read());
    if (round < 0) continue;
    routing.push_back(of_routing), routes.push_back(seconds_since(start));
  }
  router.check();
  result.routing_bytes = double(num_tokens) * (4.0 * shape.num_experts + 8.0 * shape.top_k);
  result.routing_s = largest_of_ranks(transport, median(routing));
  result.routes_s = largest_of_ranks(transport, median(routes));
}

// [ep_size, kNumPhases]: the medians of all ranks.
Matrix<double> gather_phases(Transport& transport,
                             const std::vector<std::vector<double>>& of_rank) {
  std::vector<std::int64_t> own;
  own.reserve(of_rank.size());
  for (const auto& rounds : of_rank) own.push_back(std::int64_t(median(rounds) * 1e9));
  const auto all = all_gather<std::int64_t>(transport, own, "device phases");
  Matrix<double> phases(all.rows(), all.cols());
  std::ranges::transform(all.all(), phases.all().begin(),
                         [](std::int64_t ns) { return double(ns) * 1e-9; });
  return phases;
}

DeviceRates measure_rates(Transport& transport, const DeviceBenchOptions& options,
                          BenchDevice& on) {
  const double copy = on.copy_bytes_per_s, product = product_flop_per_s(on, options.product_size);
  return {.copy_bytes_per_s = 1 / largest_of_ranks(transport, 1e9 / copy) * 1e9,
          .product_flop_per_s = 1 / largest_of_ranks(transport, 1e12 / product) * 1e12};
}

}  // namespace

DeviceBenchResult bench_device_layer(Transport& transport, const DeviceBenchOptions& options,
                                     const LayerProblem& problem, const LayerBatch& batch,
                                     const MakeBenchDevice& make_device, Progress& progress) {
  C2R_REQUIRE(problem.experts.has_value(), kInvalidArgument,
              "there are no experts to compute with");
  BenchDevice on = make_device(transport, problem.cluster);
  DeviceBenchResult result{.device = on.name,
                           .network = on.network_name,
                           .rates = measure_rates(transport, options, on)};
  time_routing(transport, options, problem, batch.x.rows(), on, result);
  ExpertsOfPlacements experts(problem, transport.rank(), on);
  std::vector<std::unique_ptr<DeviceRunner>> runners;
  const std::int64_t num_checked = std::min<std::int64_t>(4, batch.x.rows());
  const Matrix<float> expected = sums_on_host(problem, batch, num_checked);
  for (const LayerVariant& variant : problem.variants) {
    runners.push_back(std::make_unique<DeviceRunner>(transport, variant, batch,
                                                     experts.of(variant.placement), on));
    check_sums(variant.name, runners.back()->first_sums(num_checked), expected);
    runners.back()->count(problem.shape, result.rates, *on.route_launcher,
                          result.variants.emplace_back());
  }
  std::vector<std::vector<std::vector<double>>> phases(
      runners.size(), std::vector<std::vector<double>>(kNumPhases));
  std::int64_t num_done = 0;
  const std::int64_t num_runs = std::ssize(runners) * (options.num_rounds + 1);
  for (std::int32_t round = -1; round < options.num_rounds; ++round) {
    for (std::size_t v = 0; v < runners.size(); ++v) {
      progress.update(num_done++, num_runs);
      PipelineTimes times;
      const double total = largest_of_ranks(transport, runners[v]->run_once(false, times));
      (void)runners[v]->run_once(true, times);
      if (round < 0) continue;
      result.variants[v].seconds.push_back(total);
      for (std::size_t p = 0; p < kNumPhases; ++p) {
        phases[v][p].push_back(std::chrono::duration<double>(times.*kPipelinePhases[p]).count());
      }
    }
  }
  for (std::size_t v = 0; v < runners.size(); ++v) {
    result.variants[v].phase_seconds = gather_phases(transport, phases[v]);
  }
  return result;
}

}  // namespace c2r
