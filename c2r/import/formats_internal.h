// The rows of import.h's formats of routing and of counts, each made in the file of its format, and
// what all readers share.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>

#include "c2r/import/import.h"

namespace c2r {

/// Tells the caller of an import what was left out or assumed.
inline void add_note(const ImportRequest& request, std::string text) {
  if (request.notes != nullptr) request.notes->push_back(std::move(text));
}

/// Calls `read` for each input in turn and tells the request's progress how many are done.
void for_each_input(const ImportRequest& request,
                    const std::function<void(const std::filesystem::path& path)>& read);

}  // namespace c2r

namespace c2r::import_rows {

ImportFormat npy();
ImportFormat megatron();
ImportFormat orders_in_chaos();
ImportFormat moe_beyond();
ImportFormat table();
ImportFormat vllm();
ImportFormat sglang();
ImportFormat sglang_recorder();
ImportFormat flame_moe();
ImportFormat sglang_loads();
ImportFormat vllm_loads();
ImportFormat tensorrt_llm_loads();
ImportFormat table_loads();
ImportFormat coactivation();

}  // namespace c2r::import_rows
