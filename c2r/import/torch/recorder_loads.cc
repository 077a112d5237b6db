// Loads in files of SGLang's expert distribution recorder. The modes stat and stat_approx write one
// file, torch.save() of {"logical_count": [num_steps, num_layers, num_experts], ...}, already added
// up over ranks. per_pass and per_token write a file a rank with counts of slots, which are added
// up here and folded into experts.
#include <algorithm>
#include <set>

#include "c2r/core/error.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/torch/recorder_internal.h"
#include "c2r/routing/routing.h"

namespace c2r::torch {
namespace {

using counts::Loads;

void set_shape(std::int64_t num_layers, std::int64_t num_experts, const std::string& place,
               std::vector<Loads>& loads) {
  C2R_REQUIRE(
      1 <= num_layers && num_layers <= kMaxLayers && 1 <= num_experts && num_experts <= kMaxExperts,
      kInvalidFile, "{}: has {} layers of {} experts, but must have 1 to {} of 1 to {}", place,
      num_layers, num_experts, kMaxLayers, kMaxExperts);
  if (loads.empty()) {
    loads.assign(static_cast<std::size_t>(num_layers),
                 Loads(static_cast<std::size_t>(num_experts)));
  }
  C2R_REQUIRE(std::ssize(loads) == num_layers && std::ssize(loads[0]) == num_experts, kInvalidFile,
              "{}: has {} layers of {} experts, but the files before it have {} of {}", place,
              num_layers, num_experts, loads.size(), loads[0].size());
}

void add_logical_count(const TorchFile& file, std::vector<Loads>& loads) {
  const TensorData tensor =
      file.tensor(file.at(file.root(), "logical_count", "the dump"), "logical_count");
  const NpyView& array = tensor.array();
  const auto& shape = array.shape;
  const bool is_float = array.dtype == Dtype::kF32 || array.dtype == Dtype::kF64;
  C2R_REQUIRE((is_integer(array.dtype) || is_float) && (shape.size() == 2 || shape.size() == 3),
              kInvalidFile,
              "{}: logical_count is {} {}, but must be integers, or whole floats of 32 or 64 bits, "
              "[num_steps, num_layers, num_experts]",
              file.path(), dtype_name(array.dtype), shape_text(shape));
  const std::int64_t num_layers = shape[shape.size() - 2], num_experts = shape.back();
  set_shape(num_layers, num_experts, file.path(), loads);
  for (std::int64_t i = 0; i < array.num_elements(); ++i) {
    const auto layer = static_cast<std::size_t>(i / num_experts % num_layers);
    const std::int64_t count =
        is_float ? counts::count_of(double_at(array, i), file.path()) : integer_at(array, i);
    counts::add(count, loads[layer][static_cast<std::size_t>(i % num_experts)], file.path());
  }
}

// @returns what distinguishes the file's counts from those of other ranks
std::uint64_t add_slots(RecorderFile& file, std::vector<Loads>& loads) {
  Fingerprint content;
  for (std::int64_t i = 0; i < file.num_records(); ++i) {
    const TensorData tensor = file.tensor(i, "global_physical_count", 2);
    const NpyView& array = tensor.array();
    C2R_REQUIRE(array.shape[1] == file.num_slots(), kInvalidFile,
                "{}: global_physical_count has {} slots, but the map has {}", file.place(i),
                array.shape[1], file.num_slots());
    content.add_bytes(array.bytes);
    for (std::int64_t at = 0; at < array.num_elements(); ++at) {
      const std::int64_t layer = at / file.num_slots();
      const auto expert = static_cast<std::size_t>(file.expert(layer, at % file.num_slots()));
      counts::add(integer_at(array, at), loads[static_cast<std::size_t>(layer)][expert],
                  file.place(i));
    }
  }
  return content.value();
}

}  // namespace

std::vector<Loads> read_recorder_loads(const ImportRequest& request) {
  std::vector<Loads> loads;
  SameTokens same_tokens(request);
  std::set<std::int64_t> ranks;
  std::int64_t num_other_records = 0;
  for_each_input(request, [&](const std::filesystem::path& path) {
    {
      const TorchFile file(path);
      if (file.find(file.root(), "logical_count", "what the file holds") != nullptr) {
        return add_logical_count(file, loads);
      }
    }
    RecorderFile file(path);
    std::vector<Loads> of_rank;
    set_shape(file.num_layers(), file.num_experts(), file.file().path(), of_rank);
    set_shape(file.num_layers(), file.num_experts(), file.file().path(), loads);
    ranks.insert(file.rank());
    num_other_records += file.num_other_records();
    if (same_tokens.seen(add_slots(file, of_rank), file.rank())) return;
    for (std::size_t layer = 0; layer < loads.size(); ++layer) {
      for (std::size_t e = 0; e < loads[layer].size(); ++e) {
        counts::add(of_rank[layer][e], loads[layer][e], file.file().path());
      }
    }
  });
  C2R_REQUIRE(ranks.empty() || *ranks.rbegin() == std::ssize(ranks) - 1, kInvalidFile,
              "{}: files of {} ranks up to {} are given, so a rank's file is missing",
              request.inputs[0].string(), ranks.size(), *ranks.rbegin());
  if (num_other_records > 0) {
    add_note(request, fmt::format("left out: {} records of a draft model", num_other_records));
  }
  return loads;
}

}  // namespace c2r::torch
