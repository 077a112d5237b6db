// Opens files of SGLang's expert distribution recorder and checks what all readers of them need.
#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/torch/recorder_internal.h"
#include "c2r/routing/routing.h"

namespace c2r::torch {
namespace {

constexpr std::string_view kMapKey = "last_physical_to_logical_map", kTop = "what the file holds";

}  // namespace

RecorderFile::RecorderFile(const std::filesystem::path& path) : file_(path) {
  read_map();
  read_records();
}

void RecorderFile::read_map() {
  const TensorData map = file_.tensor(file_.at(file_.root(), kMapKey, kTop), kMapKey);
  const NpyView& array = map.array();
  C2R_REQUIRE(is_integer(array.dtype) && array.shape.size() == 2, kInvalidFile,
              "{}: {} is {} {}, but must be integers [num_layers, num_slots]", file_.path(),
              kMapKey, dtype_name(array.dtype), shape_text(array.shape));
  num_layers_ = array.shape[0];
  num_slots_ = array.shape[1];
  C2R_REQUIRE(1 <= num_layers_ && num_layers_ <= kMaxLayers && num_slots_ >= 1, kInvalidFile,
              "{}: {} has {} layers of {} slots, but must have 1 to {} layers", file_.path(),
              kMapKey, num_layers_, num_slots_, kMaxLayers);
  for (std::int64_t i = 0; i < array.num_elements(); ++i) {
    const std::int64_t expert = integer_at(array, i);
    C2R_REQUIRE(0 <= expert && expert < kMaxExperts, kInvalidFile,
                "{}: {} has expert {} in layer {}, but experts are from 0 to {}", file_.path(),
                kMapKey, expert, i / num_slots_, kMaxExperts - 1);
    expert_of_slot_.push_back(static_cast<std::int32_t>(expert));
    num_experts_ = std::max(num_experts_, expert + 1);
  }
}

void RecorderFile::read_records() {
  const auto all = file_.items(file_.at(file_.root(), "records", kTop), "records");
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string what = fmt::format("record {}", i);
    const Value* const key = file_.find(all[i], "gatherer_key", what);
    if (key != nullptr && file_.string(*key, what + ", gatherer_key") != "primary") {
      ++num_other_records_;
      continue;
    }
    const std::int64_t rank = file_.integer(file_.at(all[i], "rank", what), what + ", rank");
    if (records_.empty()) rank_ = rank;
    C2R_REQUIRE(rank == rank_, kInvalidFile, "{}: {} is of rank {}, but those before it of rank {}",
                file_.path(), what, rank, rank_);
    records_.push_back({&all[i], static_cast<std::int64_t>(i)});
  }
  C2R_REQUIRE(!records_.empty(), kInvalidFile,
              "{}: has no record; was the recording started before the requests?", file_.path());
}

std::string RecorderFile::place(std::int64_t i) const {
  return fmt::format("{}, record {}", file_.path(), records_[static_cast<std::size_t>(i)].number);
}

bool RecorderFile::has_tokens() const {
  return file_.find(record(0), "topk_ids_of_layer", "record 0") != nullptr;
}

TensorData RecorderFile::tensor(std::int64_t i, std::string_view key, std::size_t num_dimensions) {
  const std::string what =
      fmt::format("record {}, {}", records_[static_cast<std::size_t>(i)].number, key);
  TensorData data = file_.tensor(file_.at(record(i), key, what), what);
  const NpyView& array = data.array();
  C2R_REQUIRE(is_integer(array.dtype) && array.shape.size() == num_dimensions &&
                  array.shape[0] == num_layers_,
              kInvalidFile,
              "{}: {} is {} {}, but must be integers of {} dimensions, the first one {} layers",
              file_.path(), what, dtype_name(array.dtype), shape_text(array.shape), num_dimensions,
              num_layers_);
  num_bytes_read_ += std::ssize(array.bytes);
  C2R_REQUIRE(num_bytes_read_ <= file_.num_bytes(), kInvalidFile,
              "{}: {} has more bytes than are left of the file: records share their tensors",
              file_.path(), what);
  return data;
}

bool SameTokens::seen(std::uint64_t content, std::int64_t rank) {
  const auto [found, is_new] = rank_of_content_.emplace(content, rank);
  if (is_new) return false;
  if (found->second == rank) {
    add_note(request_,
             fmt::format("counted twice: two files of rank {} recorded the same tokens", rank));
    return false;
  }
  add_note(request_, fmt::format("left out: the file of rank {}, which recorded the same tokens as "
                                 "rank {}",
                                 rank, found->second));
  return true;
}

}  // namespace c2r::torch
