// How ranks exchange bytes. Knows nothing of tokens or experts.
//
// There is one primitive: start() sends parts of memory to some ranks and receives parts from some,
// and returns an Exchange that finishes by itself while the caller computes and polls:
//
//   auto rows = transport.start(to_send, to_receive, "layer 3 dispatch");
//   while (!rows->done()) compute_a_little();   // or rows->wait()
//
// Several exchanges may be in flight, so a chunk travels while another is computed. An exchange
// inside a node, or between the ranks with the same place in their nodes, names only those ranks;
// the others need not know of it. Barrier and all-reduce are in collectives.h.
//
// Between two ranks parts are matched in the order in which they were started, within one exchange
// in the order of the list; parts of 0 bytes are not sent and match nothing. So both ends must
// start what they exchange with each other in the same order, with the same sizes and the same
// label; where they do not, the receiver throws.
//
// A wait in which nothing arrives or leaves for the timeout throws, and says whom it waited for. A
// failed transport stays failed: there is no way back for a group that has lost a rank. To end all
// ranks when one fails is the work of what started them: run_in_process(), run_mpi().
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

/// What this rank has sent over the wire, to each rank; its own entries stay 0.
struct Traffic {
  std::vector<std::int64_t> num_messages;  // [ep_size], parts that are not empty
  std::vector<std::int64_t> num_bytes;     // [ep_size], of those parts; no headers
};

/// Parts on their way. Destroying an exchange before done() or wait() has said that it is done
/// leaves its memory alone from then on, and makes the transport a failed one. Over MPI, parts that
/// were matched already may still come: there, whoever gives up an exchange must end the process
/// before it uses the memory for something else, as run_mpi() does.
class Exchange {
 public:
  Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  virtual ~Exchange() = default;

  /// Moves what can be moved, without waiting; true when all parts have arrived and all sent memory
  /// may be reused. A transport may progress only in here and in wait(), so poll every millisecond.
  /// @throws as wait() does, but for the timeout
  [[nodiscard]] virtual bool done() = 0;

  /// Returns when done.
  /// @throws Error(kTimeout) if no part came or went for the transport's timeout,
  ///         Error(kTransport) if a peer failed or sent something else than was expected;
  ///         each begins with the label and names the ranks waited for
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

  /// Starts to send and receive. The memory, not the lists, is borrowed until the exchange is done.
  /// Parts for this rank itself are copied at once to those that the same call expects from it, and
  /// are no traffic.
  ///
  /// Cost: a message for each part that is not empty and goes to another rank.
  ///
  /// @param label what this is for, in messages: "layer 3 dispatch"; the same at both ends
  /// @throws Error(kInvalidArgument) if a rank is not in [0, ep_size),
  ///         Error(kTransport) if the transport has failed, or own parts disagree
  [[nodiscard]] virtual std::unique_ptr<Exchange> start(std::span<const Outgoing> send,
                                                        std::span<const Incoming> recv,
                                                        std::string label) = 0;

  /// All that was started so far.
  virtual const Traffic& sent() const = 0;
};

}  // namespace c2r
