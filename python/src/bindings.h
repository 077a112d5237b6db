// The functions by which each source file adds its part to the extension module.
#pragma once

#include <nanobind/nanobind.h>

namespace c2r::python {

void add_errors(nanobind::module_& module);
void add_traces(nanobind::module_& module);
void add_routing(nanobind::module_& module);
void add_collaboration(nanobind::module_& module);
void add_plans(nanobind::module_& module);
void add_predictions(nanobind::module_& module);
void add_reports(nanobind::module_& module);
void add_imports(nanobind::module_& module);
void add_host_kernels(nanobind::module_& module);

}  // namespace c2r::python
