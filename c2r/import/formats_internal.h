// The rows of import.h's formats of routing and of counts, each made in the file of its format.
#pragma once

#include "c2r/import/import.h"

namespace c2r::import_rows {

ImportFormat npy();
ImportFormat megatron();
ImportFormat orders_in_chaos();
ImportFormat moe_beyond();
ImportFormat vllm();
ImportFormat sglang();
ImportFormat sglang_loads();
ImportFormat tensorrt_llm_loads();
ImportFormat coactivation();

}  // namespace c2r::import_rows
