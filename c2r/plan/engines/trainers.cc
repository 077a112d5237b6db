// Rows of the training libraries that load no placement file: how their backends send copies.
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"

namespace c2r {
namespace {

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

constexpr ExchangeKernel kTransformersAllToAll[] = {kTorchAllToAll};
constexpr Backend kTransformersBackends[] = {{"all_to_all", kTransformersAllToAll}};

constexpr ExchangeKernel kTorchtitanStandard[] = {
    read_in(kTorchAllToAll,
            "pytorch/torchtitan torchtitan/models/common/token_dispatcher.py, "
            "AllToAllTokenDispatcher")};
constexpr ExchangeKernel kTorchtitanDeepEp[] = {
    read_in(kDeepEpV2Hybrid, "pytorch/torchtitan torchtitan/distributed/deepep/deepep.py")};
constexpr ExchangeKernel kTorchtitanHybridEp[] = {kHybridEp};
constexpr ExchangeKernel kTorchtitanMinimalAsync[] = {
    {.title = "MinimalAsyncEP",
     .mode = CopyMode::kPerExpert,
     .source = "pytorch/torchtitan torchtitan/distributed/minimal_async_ep/kernels.py, "
               "copy_rows_to_peers_kernel"}};
constexpr Backend kTorchtitanBackends[] = {{"standard", kTorchtitanStandard},
                                           {"deepep", kTorchtitanDeepEp},
                                           {"hybridep", kTorchtitanHybridEp},
                                           {"minimal_async_ep", kTorchtitanMinimalAsync}};

constexpr ExchangeKernel kDeepSpeedAutoEp[] = {read_in(
    kTorchAllToAll, "deepspeedai/DeepSpeed deepspeed/module_inject/auto_ep_layer.py, _AllToAllV")};
constexpr Backend kDeepSpeedBackends[] = {{"autoep", kDeepSpeedAutoEp}};

constexpr ExchangeKernel kAxolotlDeepEp[] = {kDeepEpNormal};
constexpr ExchangeKernel kAxolotlTorch[] = {
    {.title = "all-to-all, one row for each rank",
     .mode = CopyMode::kPerRank,
     .source = "axolotl-ai-cloud/axolotl src/axolotl/integrations/expert_parallel/"
               "torch_dispatch.py"}};
// `auto` takes deep_ep where DeepEP is installed.
constexpr Backend kAxolotlBackends[] = {{"deep_ep", kAxolotlDeepEp}, {"torch", kAxolotlTorch}};

}  // namespace

EngineRow engine_rows::transformers() {
  return {.name = "transformers", .title = "transformers", .backends = kTransformersBackends};
}

EngineRow engine_rows::torchtitan() {
  return {.name = "torchtitan", .title = "torchtitan", .backends = kTorchtitanBackends};
}

EngineRow engine_rows::deepspeed() {
  return {.name = "deepspeed", .title = "DeepSpeed", .backends = kDeepSpeedBackends};
}

EngineRow engine_rows::axolotl() {
  return {.name = "axolotl", .title = "Axolotl", .backends = kAxolotlBackends};
}

}  // namespace c2r
