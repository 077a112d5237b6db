// The interface through which ranks exchange bytes. It knows nothing of tokens or experts.
//
// There is one primitive: start() sends parts of memory to some ranks and receives parts from some,
// and returns an Exchange, which makes progress while the caller computes and polls:
//
//   auto rows = transport.start(to_send, to_receive, "layer 3 dispatch");
//   while (!rows->done()) compute_a_little();   // or rows->wait()
//
// Several exchanges may be in flight, so a chunk travels while another is computed. An exchange
// within a node, or between the ranks of the same position in their nodes, involves only the ranks
// that it names; no other rank takes part. Barrier and all-reduce are in collectives.h.
//
// Between two ranks parts are matched in the order in which they were started, within one exchange
// in the order of the list; parts of 0 bytes are not sent and match nothing. So both ranks must
// start the exchanges between them in the same order, with the same sizes and the same labels;
// otherwise the receiver throws.
//
// A wait during which no part arrives or leaves for the timeout throws an error that names the
// ranks it waited for. A failed transport stays failed, because a group that has lost a rank cannot
// go on. run_in_process() and run_mpi(), which start the ranks, also end all of them when one
// fails.
//
// To add a transport: docs/adding_a_transport.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

struct Outgoing {
  RankId dst;
  std::span<const std::byte> bytes;
};

struct Incoming {
  RankId src;
  std::span<std::byte> bytes;
};

/// What this rank has sent over the wire to each rank. The entries of this rank itself are 0.
struct Traffic {
  std::vector<std::int64_t> num_messages;  // [ep_size], parts that are not empty
  std::vector<std::int64_t> num_bytes;     // [ep_size], of those parts; no headers
};

/// Sends and receives in progress. An exchange that is destroyed before done() or wait() has
/// reported its end does not touch the memory afterwards, and the transport counts as failed. Over
/// MPI, parts that are matched already may still arrive: a program that abandons an exchange there
/// must end the process before it reuses the memory, as run_mpi() does.
class Exchange {
 public:
  Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  virtual ~Exchange() = default;

  /// Makes what progress is possible without waiting. Some transports make progress only in done()
  /// and wait(), so call it every millisecond.
  /// @returns whether all parts have arrived and all sent memory may be reused
  /// @throws as wait(), except for the timeout
  [[nodiscard]] virtual bool done() = 0;

  /// Returns when done.
  /// @throws Error(kTimeout) if no part arrived or left for the transport's timeout,
  ///         Error(kTransport) if a peer failed or sent something else than was expected; both
  ///         begin with the label and name the ranks that were waited for
  virtual void wait() = 0;
};

/// One rank's endpoint in an expert-parallel group. Used by one thread at a time.
class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  virtual RankId rank() const = 0;
  virtual std::int32_t ep_size() const = 0;

  /// Starts to send and receive. The memory of the parts, but not the two lists, is borrowed until
  /// the exchange is done. Parts for this rank itself are copied at once to those that the same
  /// call expects from it, and are no traffic.
  ///
  /// Cost: one message for each part that is not empty and goes to another rank.
  ///
  /// @param label the purpose, for messages: "layer 3 dispatch"; the same on both ranks
  /// @throws Error(kInvalidArgument) if a rank is not in [0, ep_size),
  ///         Error(kTransport) if the transport has failed, or own parts disagree
  [[nodiscard]] virtual std::unique_ptr<Exchange> start(std::span<const Outgoing> send,
                                                        std::span<const Incoming> recv,
                                                        std::string label) = 0;

  /// @returns what was started so far
  virtual const Traffic& sent() const = 0;
};

}  // namespace c2r
