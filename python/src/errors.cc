// How errors of the library become exceptions of Python.
#include <nanobind/nanobind.h>

#include "c2r/core/error.h"
#include "python/src/bindings.h"

namespace c2r::python {
namespace {

namespace nb = nanobind;

PyObject* type_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return PyExc_ValueError;
    case ErrorCode::kTimeout:
      return PyExc_TimeoutError;  // an OSError
    case ErrorCode::kInvalidFile:
    case ErrorCode::kTransport:
      return PyExc_OSError;
  }
  return PyExc_RuntimeError;
}

}  // namespace

void add_errors(nb::module_&) {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Error& e) {
      PyErr_SetString(type_of(e.code()), e.what());
    }
  });
}

}  // namespace c2r::python
