// Declares the rows of the table of engines; the file of each engine makes its row.
#pragma once

#include "c2r/plan/engines/engine.h"

namespace c2r::engine_rows {

EngineRow sglang();
EngineRow tensorrt_llm();
EngineRow vllm();
EngineRow vllm_ascend();
EngineRow omni_infer();
EngineRow eplb();
EngineRow megatron();
EngineRow transformers();
EngineRow torchtitan();
EngineRow deepspeed();
EngineRow axolotl();

}  // namespace c2r::engine_rows
