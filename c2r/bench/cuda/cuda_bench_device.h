// NVIDIA GPUs for the benchmark of a layer. Built only where nvcc is.
#pragma once

#include "c2r/bench/bench_device.h"

namespace c2r {

/// Makes the device of a rank: GPU `rank modulo the GPUs of its process`. Ranks exchange rows by
/// NCCL if c2r was built with it and each rank of a node has a GPU of its own, else through pinned
/// memory and the transport. Collective.
/// @throws Error(kUnsupported) if there is no GPU; Error(kTransport) if CUDA, cuBLAS or NCCL cannot
///         be started
BenchDevice make_cuda_bench_device(Transport& transport, const Cluster& cluster);

}  // namespace c2r
