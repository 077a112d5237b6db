// The extension module c2r._c2r_cuda: the kernels of c2r.torch's operators on NVIDIA GPUs. It needs
// no PyTorch to be built: tensors come by DLPack, and streams as their addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "python/src/bindings.h"
#include "python/src/cuda/launch_kernels.h"
#include "python/src/kernels.h"

NB_MODULE(_c2r_cuda, module) {
  using namespace c2r::python;
  module.doc() = "Kernels of c2r.torch on NVIDIA GPUs; c2r.torch calls them.";
  add_errors(module);
  add_kernels(module,
              {.place = {.device_type = nb::device::cuda::value, .text = "on a CUDA device"},
               .launch = &launch_on_cuda});
  module.def("why_not", &why_not_on_cuda, nb::arg("device"),
             "Why kernels cannot run on a CUDA device; empty if they can.");
  module.attr("architectures") = C2R_CUDA_ARCHITECTURES;
}
