// The writers of export.h's targets.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "c2r/plan/engines/export.h"

namespace c2r::engine_files {

std::string write_sglang(const Plan& plan, const ExportOptions& options);
std::string write_tensorrt_llm(const Plan& plan, const ExportOptions& options);
std::string write_vllm_41141(const Plan& plan, const ExportOptions& options);
std::string write_vllm_49572(const Plan& plan, const ExportOptions& options);
std::string write_vllm_ascend(const Plan& plan, const ExportOptions& options);
std::string write_omni_infer(const Plan& plan, const ExportOptions& options);
std::string write_eplb(const Plan& plan, const ExportOptions& options);
std::string write_permutation(const Plan& plan, const ExportOptions& options);

}  // namespace c2r::engine_files
