// Streams of an NVIDIA GPU. Built only where nvcc is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "c2r/core/cuda/device_stream.h"

namespace c2r {

/// @returns how many NVIDIA GPUs this process can use; 0 without a driver
int num_cuda_devices();

/// Makes a stream of a device, and the device the current one of the calling thread. Memory comes
/// from the device's pool, which keeps what is freed.
/// @throws Error(kUnsupported) if there is no such device
std::unique_ptr<DeviceStream> make_cuda_stream(int device);

/// @returns the name of a device, such as "NVIDIA H200"
/// @throws as make_cuda_stream()
std::string cuda_device_name(int device);

/// Copies 1 GiB within the memory of a device several times, and waits.
/// @param stream of make_cuda_stream(), without tasks
/// @returns the bytes that were read and written, a second
/// @throws Error(kTransport) if the device refuses
double measure_cuda_copy(DeviceStream& stream);

/// Turns the status of a call of the CUDA runtime into an error.
/// @param status a cudaError_t
/// @throws Error(kTransport) with the call's name and the runtime's message
void check_cuda(int status, const char* call);

}  // namespace c2r
