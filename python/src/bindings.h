// What each source file of the extension module adds to it.
#pragma once

#include <nanobind/nanobind.h>

namespace c2r::python {

void add_errors(nanobind::module_& module);
void add_traces(nanobind::module_& module);
void add_routing(nanobind::module_& module);
void add_collaboration(nanobind::module_& module);
void add_plans(nanobind::module_& module);

}  // namespace c2r::python
