// The kernels of c2r.torch's operators as functions of an extension module: c2r._c2r runs their
// bodies on the host, for tests; c2r._c2r_cuda starts them on a device.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <variant>

#include "c2r/dispatch/cuda/sums_by_source-inl.h"
#include "c2r/routing/cuda/choose-inl.h"
#include "python/src/arrays.h"

namespace c2r::python {

/// A kernel with its arguments, all of one device.
using OperatorKernel = std::variant<ChooseExperts, SumBySource, SumBySourceGradients>;

/// A kind of device on which kernels run.
struct KernelDevice {
  ArrayPlace place;
  /// Starts a kernel of at least one block behind all tasks of `stream`, and may return at once.
  /// @param stream of that device, as the framework that made it gives its address
  void (*launch)(const OperatorKernel& kernel, int device, std::uintptr_t stream);
};

/// Adds _choose, _sum_by_source and _sum_by_source_gradients. They check the device, type, layout
/// and shape of each array, and trust the indices in them.
void add_kernels(nb::module_& module, const KernelDevice& device);

}  // namespace c2r::python
