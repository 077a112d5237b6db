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
constexpr Backend kTorchtitanBackends[] = {{"standard", kTorchtitanStandard},
                                           {"deepep", kTorchtitanDeepEp},
                                           {"hybridep", kTorchtitanHybridEp}};

constexpr ExchangeKernel kDeepSpeedAutoEp[] = {read_in(
    kTorchAllToAll, "deepspeedai/DeepSpeed deepspeed/module_inject/auto_ep_layer.py, _AllToAllV")};
constexpr Backend kDeepSpeedBackends[] = {{"autoep", kDeepSpeedAutoEp}};

constexpr ExchangeKernel kAxolotlDeepEp[] = {kDeepEpNormal};
constexpr Backend kAxolotlBackends[] = {{"deepep", kAxolotlDeepEp}};

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
