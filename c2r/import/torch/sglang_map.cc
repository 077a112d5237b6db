// Turns SGLang's `--init-expert-location map.pt` into the JSON that SGLang takes as well.
#include "c2r/core/error.h"
#include "c2r/import/torch/sglang_map_internal.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/io/json.h"

namespace c2r::torch {
namespace {

Json rows_of(const TensorData& tensor, const std::string& path) {
  const NpyView& array = tensor.array();
  C2R_REQUIRE(is_integer(array.dtype) && array.shape.size() == 2 && array.num_elements() > 0,
              kInvalidFile,
              "{}: physical_to_logical_map is {} {}, but must be integers [num_hidden_layers, "
              "num_slots]",
              path, dtype_name(array.dtype), shape_text(array.shape));
  Json rows = Json::array();
  for (std::int64_t row = 0; row < array.shape[0]; ++row) {
    Json slots = Json::array();
    for (std::int64_t slot = 0; slot < array.shape[1]; ++slot) {
      slots.push_back(integer_at(array, row * array.shape[1] + slot));
    }
    rows.push_back(std::move(slots));
  }
  return rows;
}

}  // namespace

std::string sglang_map_text(const std::filesystem::path& path) {
  const TorchFile file(path);
  Json map = Json::object();
  for (const std::string_view key : file.keys(file.root(), "what the file holds")) {
    const bool is_map = key == "physical_to_logical_map";
    map[std::string(key)] =
        is_map ? rows_of(file.tensor(file.at(file.root(), key, "the dict"), key), file.path())
               : Json();
  }
  return json_text(map);
}

}  // namespace c2r::torch
