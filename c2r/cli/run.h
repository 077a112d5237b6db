// The function that main() calls. It is not in app.h, whose headers are slow to compile.
#pragma once

namespace c2r {
struct BenchDevice;
struct Cluster;
class Transport;
}  // namespace c2r

namespace c2r::cli {

/// Makes the GPU of a rank for `c2r bench layer --device cuda`; null in a program without CUDA.
using MakeCudaDevice = BenchDevice (*)(Transport& transport, const Cluster& cluster);

/// Runs the program.
/// @returns the exit status: 0 done, 1 failed, 2 used wrongly
int run(int argc, const char* const* argv, MakeCudaDevice make_cuda_device = nullptr);

}  // namespace c2r::cli
