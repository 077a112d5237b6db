// The rows of engine.h's table, each made in the file of its engine.
#pragma once

#include "c2r/plan/engines/engine.h"

namespace c2r::engine_rows {

Engine sglang();
Engine tensorrt_llm();
Engine vllm();
Engine vllm_ascend();
Engine omni_infer();
Engine eplb();
Engine megatron();

}  // namespace c2r::engine_rows
