// The extension module c2r._c2r: the library for Python, without logic of its own.
#include <nanobind/nanobind.h>

#include "python/src/bindings.h"

NB_MODULE(_c2r, module) {
  module.doc() = "The C++ library of c2r; the package c2r is its documented form.";
  c2r::python::add_errors(module);
  c2r::python::add_traces(module);
  c2r::python::add_routing(module);
  c2r::python::add_collaboration(module);
  c2r::python::add_plans(module);
  c2r::python::add_predictions(module);
  c2r::python::add_reports(module);
  c2r::python::add_imports(module);
  c2r::python::add_host_kernels(module);
}
