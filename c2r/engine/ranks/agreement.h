// Lets ranks agree before they work together that none of them has failed, and that all are about
// to run the same model in the same way.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "c2r/core/error.h"
#include "c2r/engine/engine.h"

namespace c2r {

/// An error that every rank of a group throws, with the same message. The transport works as
/// before, so all ranks can end in order, and one of them says why.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// Collective: runs `step` on every rank and returns when it has succeeded on all of them. If it
/// throws on some, every rank throws the same AgreedError, that of the lowest of these ranks.
///
/// An exception that is no Error becomes one of code kUnsupported; std::bad_alloc is called "out of
/// memory".
///
/// @param step may be different on each rank; a collective in it must be called by all
/// @param label of the exchange, the same on every rank
/// @throws as described; as Exchange::wait(), and then other ranks may not know of it: Error with
///         code kTransport or kTimeout, also if it comes from `step`
/// Cost: 8 bytes from each rank to each other; after a failure also the message.
void agree_on_errors(Transport& transport, const std::string& label,
                     const std::function<void()>& step);

/// As above for the ranks of an engine. An engine of one process just runs `step`.
void agree_on_errors(Engine& engine, const std::string& label, const std::function<void()>& step);

/// Other ranks may not know of an error of the transport, so the group has to be ended after it.
/// All other errors of agree_on_errors() are known on all ranks.
/// @returns whether `error` is one of the transport
bool is_transport_failure(const Error& error);

/// One hash for each part of a run that must be the same on all ranks: config.json, weights, plan,
/// options.
using RunFingerprint = std::array<std::uint64_t, 4>;

/// Computes the hashes of what this rank has opened. The hash of the weights is that of every
/// tensor's name, type and shape, of the gates, and of some bytes of each tensor: enough to tell
/// two checkpoints apart, not to find a damaged byte.
/// @returns the hashes
/// @throws Error(kInvalidFile) if a file cannot be read
/// Cost: reads the gates, and 256 bytes of each tensor without mapping its pages.
RunFingerprint fingerprint_of_run(const Model& model, Arithmetic arithmetic,
                                  const ExpertParallelOptions& options);

/// Collective: compares the fingerprints of all ranks, so that a rank with another checkpoint, plan
/// or options ends the run instead of spoiling its results or waiting for messages that never come.
/// @throws Error(kInvalidArgument) on every rank, naming one that differs from rank 0 and in what;
///         as Exchange::wait()
/// Cost: 32 bytes from each rank to each other.
void check_same_run(Transport& transport, const RunFingerprint& mine);

}  // namespace c2r
