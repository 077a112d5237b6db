// Streams, events and memory of the CUDA runtime behind the interface of device_stream.h.
#include "c2r/core/cuda/cuda_stream.h"

#include <cuda_runtime.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "c2r/core/error.h"

namespace c2r {
namespace {

class CudaEvent final : public DeviceEvent {
 public:
  explicit CudaEvent(cudaStream_t stream) {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming),
               "cudaEventCreateWithFlags");
    const cudaError_t status = cudaEventRecord(event_, stream);
    if (status != cudaSuccess) cudaEventDestroy(event_);
    check_cuda(status, "cudaEventRecord");
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }

  bool is_over() override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check_cuda(status, "cudaEventQuery");
    return true;
  }
  void synchronize() override { check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  cudaEvent_t native() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaStream final : public DeviceStream {
 public:
  explicit CudaStream(int device) {
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
               "cudaStreamCreateWithFlags");
    cudaMemPool_t pool = nullptr;
    check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
    std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
    check_cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
               "cudaMemPoolSetAttribute");
  }
  ~CudaStream() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }

  std::byte* allocate(std::int64_t num_bytes) override {
    if (num_bytes == 0) return nullptr;
    void* memory = nullptr;
    check_cuda(cudaMallocAsync(&memory, static_cast<std::size_t>(num_bytes), stream_),
               "cudaMallocAsync");
    return static_cast<std::byte*>(memory);
  }
  void free(std::byte* memory) noexcept override { cudaFreeAsync(memory, stream_); }
  std::byte* allocate_pinned(std::int64_t num_bytes) override {
    if (num_bytes == 0) return nullptr;
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, static_cast<std::size_t>(num_bytes)), "cudaMallocHost");
    return static_cast<std::byte*>(memory);
  }
  void free_pinned(std::byte* memory) noexcept override {
    if (memory != nullptr) cudaFreeHost(memory);
  }

  // The runtime has read pageable memory when the call returns.
  void upload(std::span<const std::byte> from, std::byte* to) override {
    copy(from.data(), to, from.size(), cudaMemcpyHostToDevice);
  }
  void copy_from_pinned(std::span<const std::byte> from, std::byte* to) override {
    copy(from.data(), to, from.size(), cudaMemcpyHostToDevice);
  }
  void copy_to_pinned(std::span<const std::byte> from, std::byte* to) override {
    copy(from.data(), to, from.size(), cudaMemcpyDeviceToHost);
  }

  std::unique_ptr<DeviceEvent> record() override { return std::make_unique<CudaEvent>(stream_); }
  void wait(const DeviceEvent& event) override {
    check_cuda(cudaStreamWaitEvent(stream_, dynamic_cast<const CudaEvent&>(event).native(), 0),
               "cudaStreamWaitEvent");
  }
  void* native() override { return stream_; }

 private:
  void copy(const std::byte* from, std::byte* to, std::size_t num_bytes, cudaMemcpyKind kind) {
    if (num_bytes == 0) return;
    check_cuda(cudaMemcpyAsync(to, from, num_bytes, kind, stream_), "cudaMemcpyAsync");
  }

  cudaStream_t stream_ = nullptr;
};

void check_device(int device) {
  const int count = num_cuda_devices();
  C2R_REQUIRE(0 <= device && device < count, kUnsupported,
              "there is no CUDA device {}: this process can use {} of them", device, count);
}

}  // namespace

void check_cuda(int status, const char* call) {
  const auto error = static_cast<cudaError_t>(status);
  C2R_REQUIRE(error == cudaSuccess, kTransport, "{} failed: {} ({})", call,
              cudaGetErrorString(error), cudaGetErrorName(error));
}

int num_cuda_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::unique_ptr<DeviceStream> make_cuda_stream(int device) {
  check_device(device);
  return std::make_unique<CudaStream>(device);
}

std::string cuda_device_name(int device) {
  check_device(device);
  cudaDeviceProp properties = {};
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

double measure_cuda_copy(DeviceStream& stream) {
  constexpr std::int64_t kNumBytes = std::int64_t{1} << 30;
  constexpr int kWarmUp = 2, kCopies = 10;
  const DeviceBuffer from(stream, kNumBytes), to(stream, kNumBytes);
  std::chrono::steady_clock::time_point start;
  for (int i = 0; i < kWarmUp + kCopies; ++i) {
    if (i == kWarmUp) {
      stream.record()->synchronize();
      start = std::chrono::steady_clock::now();
    }
    check_cuda(cudaMemcpyAsync(to.data(), from.data(), kNumBytes, cudaMemcpyDeviceToDevice,
                               static_cast<cudaStream_t>(stream.native())),
               "cudaMemcpyAsync");
  }
  stream.record()->synchronize();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return 2.0 * double(kNumBytes) * kCopies / took.count();
}

}  // namespace c2r
