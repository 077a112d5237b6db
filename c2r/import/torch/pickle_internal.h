// Restricted reader of the pickles that torch.save() writes: what torch.load(weights_only=True)
// takes of plain containers, numbers, strings and tensors. It calls nothing, and refuses every
// other name. https://docs.python.org/3/library/pickletools.html describes the opcodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/dtype.h"

namespace c2r::torch {

/// The bytes of one or more tensors, in an entry of the archive.
struct Storage {
  std::optional<Dtype> dtype;  // nothing if elements are bytes: an UntypedStorage
  std::string_view key;        // names the entry
  std::int64_t num_elements = 0;
};

/// A tensor as the pickle describes it, unchecked.
struct Tensor {
  Storage storage;
  Dtype dtype = Dtype::kU8;
  std::int64_t offset = 0;            // of its first element in the storage, in elements
  std::vector<std::int64_t> shape;    // outermost first
  std::vector<std::int64_t> strides;  // in elements, as many as the shape has
};

/// What a value is. kGlobal and kStorage occur only while a pickle is read; kBigInteger is an
/// integer that does not fit into 64 bits.
enum class Kind {
  kNone,
  kBool,
  kInteger,
  kBigInteger,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kTensor,
  kGlobal,
  kStorage
};

/// @returns the word for messages: "a list"
std::string_view kind_text(Kind kind);

/// A value of a pickle. Containers, strings and tensors are in the Objects that it belongs to;
/// values may share them, and a list may hold itself.
struct Value {
  Kind kind = Kind::kNone;
  std::int64_t number = 0;  // an integer, a bool, the bits of a double, or a position in Objects
};

/// The objects of a pickle.
struct Objects {
  Value root;
  std::vector<std::string_view> strings;      // parts of the pickle
  std::deque<std::vector<Value>> containers;  // a dict holds keys and values in turn
  std::vector<Tensor> tensors;
};

/// Reads a pickle, which must outlive the result.
/// @param place what it is, for messages
/// @throws Error(kInvalidFile), naming the byte, if it is broken or names what is not read, or has
///         more than 2^26 values, 2^24 containers and strings, or 2^20 tensors, or is nested deeper
///         than 1000 while it is being read
/// Cost: time proportional to its bytes; memory of at most some 60 bytes for each of them.
Objects read_pickle(std::span<const std::byte> pickle, std::string_view place);

}  // namespace c2r::torch
