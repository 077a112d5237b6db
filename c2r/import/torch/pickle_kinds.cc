// The words of messages for the kinds of values in a pickle.
#include "c2r/import/torch/pickle_internal.h"

namespace c2r::torch {

std::string_view kind_text(Kind kind) {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInteger:
      return "an integer";
    case Kind::kBigInteger:
      return "an integer of more than 64 bits";
    case Kind::kFloat:
      return "a float";
    case Kind::kString:
      return "a string";
    case Kind::kList:
      return "a list";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kDict:
      return "a dict";
    case Kind::kTensor:
      return "a tensor";
    case Kind::kGlobal:
      return "a name";
    case Kind::kStorage:
      return "a storage";
  }
  return "?";
}

}  // namespace c2r::torch
