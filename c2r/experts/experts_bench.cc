// Times the experts of one layer in the shapes of real models, with random weights, and the bounds
// of the machine: large products by oneDNN, where it is installed, and reading memory.
//
// flop/s counts 6 x hidden x intermediate FLOPs for each row. weight_bytes/s counts the weights of
// experts with rows once, without repeated reads for further blocks of rows. The benchmark cycles
// through weights of some hundred MB, so they come from memory, not from a cache.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "c2r/core/rng.h"
#include "c2r/experts/expert_mlp.h"
#ifdef C2R_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace c2r {
namespace {

struct Problem {
  const char* name;
  std::int64_t hidden, intermediate;
  std::int32_t num_experts, top_k;
};
constexpr Problem kProblems[] = {{"llama_moe_3_5b", 4096, 1376, 8, 2},
                                 {"olmoe_1b_7b", 2048, 1024, 64, 8},
                                 {"qwen1_5_moe_a2_7b", 2048, 1408, 60, 4}};

constexpr std::int64_t num_weights(const Problem& p) {
  return p.num_experts * 3 * p.hidden * p.intermediate;
}

// Random bf16 weights of magnitude 2^-7 to 2^-6, as many as the largest problem needs.
const std::vector<std::uint16_t>& random_weights() {
  static const std::vector<std::uint16_t> weights = [] {
    const auto size = num_weights(std::ranges::max(kProblems, {}, num_weights));
    std::vector<std::uint16_t> values(static_cast<std::size_t>(size));
    std::uint64_t state = 1;
    for (auto& w : values) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      w = static_cast<std::uint16_t>(((state >> 33) & 0x807fu) | 0x3c00u);
    }
    return values;
  }();
  return weights;
}

// A layer and the rows of `num_tokens` tokens with random choices, grouped by expert.
struct Layer {
  Layer(const Problem& p, std::int64_t num_tokens)
      : x(num_tokens * p.top_k, p.hidden), out(num_tokens * p.top_k, p.hidden) {
    const std::int64_t matrix = p.hidden * p.intermediate;
    const auto view = [&](std::int64_t m, std::int64_t outputs, std::int64_t inputs) {
      return RowsView(reinterpret_cast<const std::byte*>(random_weights().data() + m * matrix),
                      ElementType::kBf16, outputs, inputs, inputs);
    };
    for (std::int64_t e = 0; e < p.num_experts; ++e) {
      experts.push_back({.gate = view(3 * e, p.intermediate, p.hidden),
                         .up = view(3 * e + 1, p.intermediate, p.hidden),
                         .down = view(3 * e + 2, p.hidden, p.intermediate)});
    }
    std::mt19937_64 rng(1);
    for (float& v : x.all()) v = static_cast<float>(static_cast<double>(rng() >> 11) * 0x1p-52 - 1);
    std::vector<std::int64_t> rows(experts.size());
    std::vector<std::size_t> order(experts.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::int64_t t = 0; t < num_tokens; ++t) {
      shuffle(std::span(order), rng);
      for (std::int32_t k = 0; k < p.top_k; ++k) ++rows[order[static_cast<std::size_t>(k)]];
    }
    std::int64_t begin = 0;
    for (std::size_t e = 0; e < experts.size(); ++e) {
      groups.push_back({&experts[e], MatrixView<const float>(x).rows(begin, begin + rows[e]),
                        MatrixView<float>(out).rows(begin, begin + rows[e])});
      if (rows[e] > 0) weight_bytes += experts[e].num_bytes();
      begin += rows[e];
    }
  }

  std::vector<ExpertWeights> experts;
  Matrix<float> x, out;
  std::vector<ExpertRows> groups;
  std::int64_t weight_bytes = 0;
};

// Compares the first row of the first expert with rows with the reference.
bool is_right(const Layer& layer) {
  const auto busy =
      std::ranges::find_if(layer.groups, [](const ExpertRows& g) { return g.out.rows() > 0; });
  Matrix<float> expected(1, layer.x.cols());
  const ExpertRows one{busy->expert, busy->x.rows(0, 1), expected};
  run_experts_reference({&one, 1});
  double error = 0, size = 0;
  for (std::int64_t h = 0; h < expected.cols(); ++h) {
    error += std::pow(double{busy->out(0, h)} - double{expected(0, h)}, 2);
    size += std::pow(double{expected(0, h)}, 2);
  }
  return error <= std::pow(4 * 0x1p-9, 2) * size;  // three roundings to bf16 of 2^-9 each
}

void BM_Experts(benchmark::State& state) {
  const Problem& p = kProblems[state.range(0)];
  Layer layer(p, state.range(1));
  ThreadPool pool(default_num_threads());
  GroupedGemm gemm(Arithmetic::kBf16, pool);
  ExpertMlps mlps(gemm);
  mlps.run(layer.groups);
  if (!is_right(layer)) return state.SkipWithError("the result is wrong");
  for (auto _ : state) mlps.run(layer.groups);
  const auto runs = static_cast<double>(state.iterations());
  const auto flops = static_cast<double>(6 * layer.x.rows() * p.hidden * p.intermediate);
  state.SetLabel(p.name);
  state.counters["flop/s"] = {flops * runs, benchmark::Counter::kIsRate};
  state.counters["weight_bytes/s"] = {static_cast<double>(layer.weight_bytes) * runs,
                                      benchmark::Counter::kIsRate};
}
BENCHMARK(BM_Experts)
    ->ArgNames({"problem", "tokens"})
    ->ArgsProduct({{0, 1, 2}, {1, 8, 512}})
    ->UseRealTime();

// Prefetches two pages ahead, because hardware prefetchers stop at the end of a page.
std::uint64_t sum_from_memory(std::span<const std::uint64_t> part) {
  constexpr std::size_t kLine = 8, kAhead = 1024;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < part.size(); i += kLine) {
    __builtin_prefetch(&part[std::min(i + kAhead, part.size() - 1)]);
    for (std::size_t j = 0; j < kLine; ++j) sum += part[i + j];
  }
  return sum;
}

// The bound of decoding: each processor reads and sums its part of 512 MiB.
void BM_MemoryRead(benchmark::State& state) {
  const std::vector<std::uint64_t> memory(std::size_t{64} << 20, 1);
  ThreadPool pool(default_num_threads());
  constexpr std::int64_t kPieces = 256;
  std::vector<std::uint64_t> sums(kPieces);
  const auto sum = [&] {
    pool.run(kPieces, [&](std::int64_t piece, int) {
      const auto part = std::span(memory).subspan(
          static_cast<std::size_t>(piece) * memory.size() / kPieces, memory.size() / kPieces);
      sums[static_cast<std::size_t>(piece)] = sum_from_memory(part);
    });
    return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
  };
  if (sum() != memory.size()) return state.SkipWithError("the result is wrong");
  for (auto _ : state) benchmark::DoNotOptimize(sum());
  state.SetBytesProcessed(state.iterations() * std::ssize(memory) * 8);
}
BENCHMARK(BM_MemoryRead)->UseRealTime();

#ifdef C2R_HAVE_ONEDNN
// The bound of prompts: products [m, 4096, 4096] by oneDNN, with weights in its packed format and
// f32 outputs. On processors without bf16 instructions, f32 is the bound of both types.
void BM_OneDnn(benchmark::State& state, dnnl::memory::data_type type) {
  using dnnl::memory;
  const std::int64_t n = 4096, m = state.range(0);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x({m, n}, type, memory::format_tag::ab);
  const memory::desc w({n, n}, type, memory::format_tag::any);
  const memory::desc out({m, n}, memory::data_type::f32, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc problem(dnnl::matmul::desc(x, w, out), engine, true);
  if (!problem) {  // not an error: there is nothing to compare with
    for (auto _ : state) {
    }
    return state.SetLabel("oneDNN cannot do this on this processor");
  }
  const dnnl::matmul multiply(problem);
  // Zeros would be multiplied as fast, but with less power. All numbers are 1 + 2^-7, so each sum
  // is known.
  const auto filled = [&](const memory::desc& d) {
    memory made(d, engine);
    if (type == memory::data_type::bf16) {
      std::fill_n(static_cast<std::uint16_t*>(made.get_data_handle()), d.get_size() / 2, 0x3f81);
    } else {
      std::fill_n(static_cast<float*>(made.get_data_handle()), d.get_size() / 4, 1.0078125f);
    }
    return made;
  };
  memory result(out, engine);
  const std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, filled(x)},
      {DNNL_ARG_WEIGHTS, filled(problem.weights_desc())},
      {DNNL_ARG_DST, result}};
  multiply.execute(stream, arguments);
  stream.wait();
  const float expected = static_cast<float>(n) * 1.0078125f * 1.0078125f;
  if (std::abs(*static_cast<float*>(result.get_data_handle()) - expected) > expected * 0x1p-11f) {
    return state.SkipWithError("the result is wrong");
  }
  for (auto _ : state) {
    multiply.execute(stream, arguments);
    stream.wait();
  }
  state.counters["flop/s"] = {
      2.0 * static_cast<double>(m * n * n) * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate};
}
BENCHMARK_CAPTURE(BM_OneDnn, bf16, dnnl::memory::data_type::bf16)
    ->ArgName("rows")
    ->Arg(64)
    ->Arg(512)
    ->Arg(4096)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_OneDnn, f32, dnnl::memory::data_type::f32)
    ->ArgName("rows")
    ->Arg(64)
    ->Arg(512)
    ->Arg(4096)
    ->UseRealTime();
#endif

}  // namespace
}  // namespace c2r
