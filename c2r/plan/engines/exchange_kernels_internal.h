// The kernels that several engines call for dispatch and combine, as their sources of 2026, most
// of June to October, were read: how each of them sends the copies of a token.
#pragma once

#include "c2r/plan/engines/engine.h"

namespace c2r::exchange_kernels {

inline constexpr std::string_view kFusedVerdict =
    "the exchange is hidden under the experts' products: placement saves no time here";
inline constexpr std::string_view kOncePerNodeVerdict =
    "a token goes to a node once, and there to each of its experts: placement saves copies between "
    "nodes, and those that stay on their rank";

/// DeepEP's kernels of its first version. On one node the normal kernels send one copy for each
/// rank, which mode per-node does there, too.
inline constexpr ExchangeKernel kDeepEpNormal = {
    .title = "DeepEP normal",
    .mode = CopyMode::kPerNode,
    .source = "deepseek-ai/DeepEP csrc/kernels/legacy/internode.cu, intranode.cu"};
inline constexpr ExchangeKernel kDeepEpLowLatency = {
    .title = "DeepEP low latency",
    .mode = CopyMode::kPerExpert,
    .source = "deepseek-ai/DeepEP csrc/kernels/legacy/internode_ll.cu",
    .is_for_decoding = true};

inline constexpr ExchangeKernel kDeepEpV2Hybrid = {
    .title = "DeepEP V2 hybrid",
    .mode = CopyMode::kPerNode,
    .source = "deepseek-ai/DeepEP deep_ep/include/deep_ep/impls/hybrid_dispatch.cuh"};
inline constexpr ExchangeKernel kDeepEpV2Direct = {
    .title = "DeepEP V2 direct",
    .mode = CopyMode::kPerRank,
    .source = "deepseek-ai/DeepEP deep_ep/include/deep_ep/impls/dispatch.cuh"};

inline constexpr ExchangeKernel kMooncake = {
    .title = "Mooncake EP low latency",
    .mode = CopyMode::kPerExpert,
    .source = "kvcache-ai/Mooncake mooncake-ep/src/mooncake_ep_kernel.cu",
    .is_for_decoding = true};

inline constexpr ExchangeKernel kNixlLowLatency = {
    .title = "NIXL EP low latency",
    .mode = CopyMode::kPerExpert,
    .source = "ai-dynamo/nixl examples/device/ep/csrc/kernels/nixl_ep_ll.cu",
    .is_for_decoding = true};

inline constexpr ExchangeKernel kPplx = {
    .title = "pplx-kernels",
    .mode = CopyMode::kPerExpert,
    .source = "perplexityai/pplx-kernels csrc/all_to_all/internode_dispatch.cu",
    .is_for_decoding = true};

inline constexpr ExchangeKernel kMoriNormal = {
    .title = "MORI normal",
    .mode = CopyMode::kPerNode,
    .source = "ROCm/mori src/ops/dispatch_combine/internode_v1.cpp, intranode.hpp"};
inline constexpr ExchangeKernel kMoriAsync = {
    .title = "MORI AsyncLL",
    .mode = CopyMode::kPerRank,
    .source = "ROCm/mori src/ops/dispatch_combine/low_latency_async.cpp",
    .is_for_decoding = true};
/// It puts runs of 64 tokens to each other node, needed there or not.
inline constexpr ExchangeKernel kMoriInterNodeLowLatency = {
    .title = "MORI InterNodeV1LL",
    .source = "ROCm/mori src/ops/dispatch_combine/internode_v1.cpp, DispatchInterNodeLLSend",
    .is_for_decoding = true,
    .verdict = "every token goes to every node: placement saves only copies inside a node"};

/// It writes a token once to each rank with one of its experts, and reads one sum back from each.
inline constexpr ExchangeKernel kFlashInferOneSided = {
    .title = "FlashInfer one-sided",
    .mode = CopyMode::kPerRank,
    .source =
        "flashinfer-ai/flashinfer csrc/nv_internal/tensorrt_llm/kernels/communicationKernels/"
        "moeAlltoAllDispatch.cu, moeAlltoAllCombine.cu at 16da4acbf18c"};

/// It lists each token once for each rank with one of its experts.
inline constexpr ExchangeKernel kFlashInferTwoSided = {
    .title = "FlashInfer two-sided",
    .mode = CopyMode::kPerRank,
    .source =
        "flashinfer-ai/flashinfer csrc/nv_internal/tensorrt_llm/kernels/moePrepareKernels.cu, "
        "computeCountAndSendStatics"};

inline constexpr ExchangeKernel kMegaMoe = {.title = "DeepGEMM Mega MoE",
                                            .source =
                                                "deepseek-ai/DeepGEMM deep_gemm/include/deep_gemm/"
                                                "impls/sm100_fp8_fp4_mega_moe.cuh",
                                            .verdict = kFusedVerdict};

/// The layout that its caller asks for decides what is written inside a node: in the flat one a
/// copy for each rank, in the expert-major one a copy for each expert.
inline constexpr ExchangeKernel kNcclEpHighThroughput = {
    .title = "NCCL EP high throughput",
    .mode = CopyMode::kPerNode,
    .source = "NVIDIA/nccl contrib/nccl_ep/device/hybrid_ep.cuh at 03cc7f218f83"};
inline constexpr ExchangeKernel kNcclEpHighThroughputExpertMajor = {
    .title = "NCCL EP high throughput, expert-major",
    .source = "NVIDIA/nccl contrib/nccl_ep/device/hybrid_ep.cuh at 03cc7f218f83",
    .verdict = kOncePerNodeVerdict};
inline constexpr ExchangeKernel kNcclEpExpertMajor = {
    .title = "NCCL EP low latency, expert-major",
    .mode = CopyMode::kPerRank,
    .combine_mode = CopyMode::kPerExpert,
    .source = "NVIDIA/nccl contrib/nccl_ep/device/low_latency.cu",
    .is_for_decoding = true};
inline constexpr ExchangeKernel kNcclEpRankMajor = {
    .title = "NCCL EP low latency, rank-major",
    .mode = CopyMode::kPerRank,
    .source = "NVIDIA/nccl contrib/nccl_ep/device/low_latency.cu",
    .is_for_decoding = true};

inline constexpr ExchangeKernel kUcclNormal = {
    .title = "UCCL-EP normal",
    .mode = CopyMode::kPerNode,
    .source = "uccl-project/uccl ep/src/internode.cu, intranode.cu"};
inline constexpr ExchangeKernel kUcclLowLatency = {
    .title = "UCCL-EP low latency",
    .mode = CopyMode::kPerExpert,
    .source = "uccl-project/uccl ep/src/internode_ll.cu",
    .is_for_decoding = true};

/// Its fused kernels join the exchange with the sorting of rows by expert, not with products.
inline constexpr ExchangeKernel kHybridEp = {
    .title = "HybridEP",
    .mode = CopyMode::kPerNode,
    .source =
        "deepseek-ai/DeepEP, branch hybrid-ep, csrc/hybrid_ep/backend/hybrid_ep_backend.cuh at "
        "090de8371ad4"};

/// The operators npu_moe_distribute_dispatch and _combine for Ascend: a row for each token and
/// expert, written into a window of the expert's rank.
inline constexpr ExchangeKernel kMc2 = {
    .title = "MC2",
    .mode = CopyMode::kPerExpert,
    .source =
        "CANN ops-transformer mc2/moe_distribute_dispatch_v2/op_kernel/"
        "moe_distribute_dispatch_v2.h, SendToMoeExpert, at bfbbec839121",
    .is_for_decoding = true};
/// The same by servers, which Ascend A2 can be told to do.
inline constexpr ExchangeKernel kMc2Hierarchical = {
    .title = "MC2 hierarchical",
    .source =
        "CANN ops-transformer mc2/moe_distribute_dispatch/op_kernel/"
        "moe_distribute_dispatch_a2_layered.h, Win2Ipc, at bfbbec839121",
    .is_for_decoding = true,
    .verdict = kOncePerNodeVerdict};

inline constexpr ExchangeKernel kAllGather = {
    .title = "all-gather", .mode = CopyMode::kAllGather, .source = "collectives of NCCL"};

/// One row for each token and expert, by PyTorch's all_to_all_single.
inline constexpr ExchangeKernel kTorchAllToAll = {
    .title = "all-to-all",
    .mode = CopyMode::kPerExpert,
    .source = "transformers distributed/expert_parallel.py, AllToAllEP"};

/// @returns the kernel, chosen by `setting` of the engine
constexpr ExchangeKernel with_setting(ExchangeKernel kernel, std::string_view setting) {
  kernel.setting = setting;
  return kernel;
}

/// @returns the kernel, as an engine calls it that was read at `source`
constexpr ExchangeKernel read_in(ExchangeKernel kernel, std::string_view source) {
  kernel.source = source;
  return kernel;
}

}  // namespace c2r::exchange_kernels
