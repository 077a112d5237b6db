// Groups of NCCL's sends and receives on a stream of the CUDA runtime.
#include "c2r/transport/nccl/nccl_calls.h"

#include <nccl.h>

#include <span>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

void check_nccl(ncclResult_t result, const char* call) {
  C2R_REQUIRE(result == ncclSuccess, kTransport, "{} failed: {}", call, ncclGetErrorString(result));
}

class NcclCalls final : public GroupedCalls {
 public:
  NcclCalls(const ncclUniqueId& id, RankId rank, std::int32_t ep_size) {
    check_nccl(ncclCommInitRank(&comm_, ep_size, id, static_cast<int>(rank)), "ncclCommInitRank");
  }
  // Ends groups that wait for a rank that has failed, too.
  ~NcclCalls() override { ncclCommAbort(comm_); }

  void send_and_receive(std::span<const Outgoing> send, std::span<const Incoming> recv,
                        DeviceStream& stream) override {
    auto* const native = static_cast<cudaStream_t>(stream.native());
    check_nccl(ncclGroupStart(), "ncclGroupStart");
    ncclResult_t result = ncclSuccess;
    for (const Outgoing& part : send) {
      if (result != ncclSuccess) break;
      result = ncclSend(part.bytes.data(), part.bytes.size(), ncclUint8, static_cast<int>(part.dst),
                        comm_, native);
    }
    for (const Incoming& part : recv) {
      if (result != ncclSuccess) break;
      result = ncclRecv(part.bytes.data(), part.bytes.size(), ncclUint8, static_cast<int>(part.src),
                        comm_, native);
    }
    const ncclResult_t end = ncclGroupEnd();
    check_nccl(result, "ncclSend or ncclRecv");
    check_nccl(end, "ncclGroupEnd");
  }

  void check() override {
    ncclResult_t result = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(comm_, &result), "ncclCommGetAsyncError");
    check_nccl(result, "an exchange of NCCL");
  }

 private:
  ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<GroupedCalls> make_nccl_calls(Transport& transport) {
  ncclUniqueId id = {};
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(id.internal));
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  if (transport.rank() == RankId{0}) {
    check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    for (std::int32_t r = 1; r < transport.ep_size(); ++r) send.push_back({RankId{r}, bytes});
  } else {
    recv.push_back({RankId{0}, bytes});
  }
  transport.start(send, recv, "the id of NCCL's communicator")->wait();
  return std::make_unique<NcclCalls>(id, transport.rank(), transport.ep_size());
}

}  // namespace c2r
