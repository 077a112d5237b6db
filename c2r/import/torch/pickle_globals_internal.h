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

/// Names of tensors that are not read, with what they are and what can be done.
struct RefusedName {
  std::string_view module, name, what;
};

inline constexpr RefusedName kRefusedNames[] = {
    {"torch._utils", "_rebuild_sparse_tensor", "a sparse tensor: save it with .to_dense()"},
    {"torch._utils", "_rebuild_sparse_csr_tensor", "a sparse tensor: save it with .to_dense()"},
    {"torch._utils", "_rebuild_qtensor", "a quantized tensor: save it with .int_repr()"},
    {"torch._utils", "_rebuild_meta_tensor_no_storage",
     "a tensor on the device meta, which has no elements"},
    {"torch._utils", "_rebuild_nested_tensor", "a nested tensor: save it with .to_padded_tensor()"},
    {"torch._utils", "_rebuild_parameter", "a parameter of a model: save its .data"},
    {"torch._utils", "_rebuild_device_tensor_from_numpy",
     "a tensor on a device of its own: save it with .cpu()"},
    {"torch._tensor", "_rebuild_from_type_v2",
     "a tensor with attributes, or of a class of its own: save it with .detach().clone()"},
    {"torch", "ComplexFloatStorage", "a tensor of complex numbers"},
    {"torch", "ComplexDoubleStorage", "a tensor of complex numbers"},
    {"numpy.core.multiarray", "_reconstruct", "an array of NumPy: save it with numpy.save()"},
    {"numpy._core.multiarray", "_reconstruct", "an array of NumPy: save it with numpy.save()"},
};

}  // namespace c2r::torch
