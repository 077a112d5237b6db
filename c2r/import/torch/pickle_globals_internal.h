// The only names that a pickle may refer to, and what each stands for.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "c2r/io/dtype.h"

namespace c2r::torch {

enum class Global : std::int64_t { kOrderedDict, kSize, kTensorV2, kTensorV3, kStorage, kDtype };

struct GlobalRow {
  std::string_view module, name;
  Global global;
  std::optional<Dtype> dtype = {};
};

inline constexpr GlobalRow kGlobals[] = {
    {"collections", "OrderedDict", Global::kOrderedDict},
    {"torch", "Size", Global::kSize},
    {"torch._utils", "_rebuild_tensor_v2", Global::kTensorV2},
    {"torch._utils", "_rebuild_tensor_v3", Global::kTensorV3},
    {"torch", "BoolStorage", Global::kStorage, Dtype::kBool},
    {"torch", "ByteStorage", Global::kStorage, Dtype::kU8},
    {"torch", "CharStorage", Global::kStorage, Dtype::kI8},
    {"torch", "ShortStorage", Global::kStorage, Dtype::kI16},
    {"torch", "IntStorage", Global::kStorage, Dtype::kI32},
    {"torch", "LongStorage", Global::kStorage, Dtype::kI64},
    {"torch", "HalfStorage", Global::kStorage, Dtype::kF16},
    {"torch", "BFloat16Storage", Global::kStorage, Dtype::kBf16},
    {"torch", "FloatStorage", Global::kStorage, Dtype::kF32},
    {"torch", "DoubleStorage", Global::kStorage, Dtype::kF64},
    {"torch.storage", "UntypedStorage", Global::kStorage},
    {"torch", "uint16", Global::kDtype, Dtype::kU16},
    {"torch", "uint32", Global::kDtype, Dtype::kU32},
    {"torch", "uint64", Global::kDtype, Dtype::kU64},
};

}  // namespace c2r::torch
