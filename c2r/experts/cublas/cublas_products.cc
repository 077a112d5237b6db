// Grouped products by cuBLAS: sizes on the host, addresses of the matrices uploaded for each call.
#include "c2r/experts/cublas/cublas_products.h"

#include <cublas_v2.h>

#include <cstdint>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

void check_cublas(cublasStatus_t status, const char* call) {
  C2R_REQUIRE(status == CUBLAS_STATUS_SUCCESS, kTransport, "{} failed: {} ({})", call,
              cublasGetStatusString(status), cublasGetStatusName(status));
}

cublasOperation_t operation(bool transposes) {
  return transposes ? CUBLAS_OP_T : CUBLAS_OP_N;
}

// The arguments of a grouped call: each group is one product.
struct GroupedArguments {
  std::vector<cublasOperation_t> transa, transb;
  std::vector<int> m, n, k, lda, ldb, ldc, group_size;
  std::vector<float> alpha, beta;
  std::vector<const std::byte*> addresses;  // of all a, then of all b, then of all c

  GroupedArguments(ProductKind kind, std::span<const DeviceProduct> products)
      : group_size(products.size(), 1),
        alpha(products.size(), 1),
        beta(products.size(), 0),
        addresses(3 * products.size()) {
    for (std::size_t i = 0; i < products.size(); ++i) {
      const BlasProduct call = blas_product(kind, products[i]);
      transa.push_back(operation(call.transposes_a)),
          transb.push_back(operation(call.transposes_b));
      m.push_back(call.m), n.push_back(call.n), k.push_back(call.k);
      lda.push_back(call.lda), ldb.push_back(call.ldb), ldc.push_back(call.ldc);
      addresses[i] = call.a;
      addresses[products.size() + i] = call.b;
      addresses[2 * products.size() + i] = call.c;
    }
  }
};

class CublasProducts final : public GroupedProducts {
 public:
  CublasProducts() { check_cublas(cublasCreate(&handle_), "cublasCreate"); }
  ~CublasProducts() override { cublasDestroy(handle_); }

  void run(ProductKind kind, std::span<const DeviceProduct> products,
           DeviceStream& stream) override {
    if (products.empty()) return;
    check_cublas(cublasSetStream(handle_, static_cast<cudaStream_t>(stream.native())),
                 "cublasSetStream");
    if (kind != ProductKind::kTransposedTimes) return run_grouped(kind, products, stream);
    for (const DeviceProduct& product : products) add_outer(product);
  }

 private:
  void run_grouped(ProductKind kind, std::span<const DeviceProduct> products,
                   DeviceStream& stream) {
    const GroupedArguments with(kind, products);
    const DeviceBuffer addresses(stream, std::ssize(with.addresses) * std::int64_t{sizeof(void*)});
    stream.upload(std::as_bytes(std::span(with.addresses)), addresses.data());
    auto* const a = reinterpret_cast<const void**>(addresses.data());
    const auto** const b = a + products.size();
    auto* const c = reinterpret_cast<void**>(addresses.data()) + 2 * products.size();
    check_cublas(
        cublasGemmGroupedBatchedEx(
            handle_, with.transa.data(), with.transb.data(), with.m.data(), with.n.data(),
            with.k.data(), with.alpha.data(), a, CUDA_R_16BF, with.lda.data(), b, CUDA_R_16BF,
            with.ldb.data(), with.beta.data(), c, CUDA_R_16BF, with.ldc.data(),
            static_cast<int>(products.size()), with.group_size.data(), CUBLAS_COMPUTE_32F),
        "cublasGemmGroupedBatchedEx");
  }

  void add_outer(const DeviceProduct& product) {
    const BlasProduct call = blas_product(ProductKind::kTransposedTimes, product);
    const float alpha = 1, beta = product.adds ? 1.0F : 0.0F;
    check_cublas(cublasGemmEx(handle_, operation(call.transposes_a), operation(call.transposes_b),
                              call.m, call.n, call.k, &alpha, call.a, CUDA_R_16BF, call.lda, call.b,
                              CUDA_R_16BF, call.ldb, &beta, call.c, CUDA_R_32F, call.ldc,
                              CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                 "cublasGemmEx");
  }

  cublasHandle_t handle_ = nullptr;
};

}  // namespace

std::unique_ptr<GroupedProducts> make_cublas_products() {
  return std::make_unique<CublasProducts>();
}

}  // namespace c2r
