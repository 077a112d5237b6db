// Marks functions that run on the host and, where nvcc compiles them, on a device.
#pragma once

#ifdef __CUDACC__
#define C2R_HOST_DEVICE __host__ __device__
#else
#define C2R_HOST_DEVICE
#endif
