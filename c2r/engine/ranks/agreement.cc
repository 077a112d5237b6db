// Compares fingerprints of what ranks have opened, and tells all ranks of an error on one.
#include "c2r/engine/ranks/agreement.h"

#include <algorithm>
#include <array>
#include <bit>
#include <fstream>
#include <iterator>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/fingerprint.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/io/safetensors.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

void add_text(std::string_view text, Fingerprint& hash) {
  hash.add(text.size());
  hash.add_bytes(std::as_bytes(std::span(text)));
}

constexpr std::size_t kPieceBytes = 32;
constexpr std::size_t kNumPieces = 8;

// Pieces at equal distances, from the first byte to the last. Through the file, so that they do not
// become this rank's memory.
void add_pieces(const SafetensorsFile& shard, const TensorView& tensor, std::ifstream& file,
                Fingerprint& hash) {
  const auto begin = tensor.bytes.data() - shard.bytes().data();
  const std::size_t count = std::min(kPieceBytes, tensor.bytes.size());
  const std::size_t last = tensor.bytes.size() - count;
  std::array<char, kPieceBytes> piece{};
  for (std::size_t p = 0; p < kNumPieces; ++p) {
    file.seekg(begin + static_cast<std::ptrdiff_t>(last * p / (kNumPieces - 1)));
    file.read(piece.data(), static_cast<std::streamsize>(count));
    C2R_REQUIRE(file.good(), kInvalidFile, "{}: cannot be read", shard.path());
    hash.add_bytes(std::as_bytes(std::span(piece).first(count)));
  }
}

std::uint64_t hash_of_weights(const Model& model) {
  Fingerprint hash;
  for (const SafetensorsFile& shard : model.checkpoint().shards()) {
    std::ifstream file;
    file.rdbuf()->pubsetbuf(nullptr, 0);  // pieces are small and far from each other
    file.open(shard.path(), std::ios::binary);
    for (const auto& [name, tensor] : shard.tensors()) {
      add_text(name, hash);
      hash.add(tensor.dtype);
      for (const std::int64_t extent : tensor.shape) hash.add(extent);
      add_pieces(shard, tensor, file, hash);
    }
  }
  for (const LayerWeights& layer : model.weights().layers) {
    if (!layer.moe) continue;
    const RowsView& gate = layer.moe->gate;
    hash.add_bytes(gate.bytes());
  }
  return hash.value();
}

std::uint64_t hash_of_config(const Model& model) {
  Fingerprint hash;
  add_text(json_text(read_json_file(model.folder() / "config.json")), hash);
  return hash.value();
}

// Lists and slots, which a plan brings.
std::uint64_t hash_of_plan(const ModelConfig& config, const ExpertParallelOptions& options) {
  Fingerprint hash;
  for (const CollaborationConstraint& constraint : config.constraints) {
    hash.add(constraint.top_t);
    for (const ExpertId e : constraint.collaborators.all()) hash.add(e);
  }
  for (const Placement& placement : options.placements) {
    hash.add(placement.slots_per_rank());
    for (const ExpertId e : placement.slots.all()) hash.add(e);
  }
  hash.add(options.dispatch.traffic.cluster.ranks_per_node);
  return hash.value();
}

std::uint64_t hash_of_signature(const Plan* plan) {
  Fingerprint hash;
  if (plan == nullptr || !plan->homes || !plan->homes->signature) return hash.value();
  const HomeSignature& signature = *plan->homes->signature;
  hash.add(signature.layer_index);
  hash.add(signature.num_tokens);
  for (const double weight : signature.weights.all()) hash.add(std::bit_cast<std::int64_t>(weight));
  if (const auto& of_ids = signature.token_weights) {
    for (const TokenId id : of_ids->ids) hash.add(id);
    for (const double weight : of_ids->weights.all()) hash.add(std::bit_cast<std::int64_t>(weight));
    for (const double weight : of_ids->of_others) hash.add(std::bit_cast<std::int64_t>(weight));
  }
  return hash.value();
}

std::uint64_t hash_of_options(Arithmetic arithmetic, const ExpertParallelOptions& options) {
  Fingerprint hash;
  hash.add(arithmetic);
  hash.add(options.dispatch.traffic.copy_mode);
  hash.add(options.dispatch.traffic.replica_rule);
  hash.add(options.dispatch.traffic.seed);
  hash.add(options.dispatch.row_type);
  hash.add(options.num_chunks.value_or(0));
  return hash.value();
}

constexpr std::string_view kComparedParts[] = {
    "another config.json", "other weights", "another plan",
    "another copy mode, row type, dtype or number of chunks"};

// What `step` throws, as an Error.
std::optional<Error> error_of_step(const std::function<void()>& step) {
  try {
    step();
    return std::nullopt;
  } catch (const Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kUnsupported, "out of memory");
  } catch (const std::exception& e) {
    return Error(ErrorCode::kUnsupported, shown(e.what(), 200));
  }
}

// Sends bytes of `root` to all others. Every rank gives as many.
void broadcast(Transport& transport, RankId root, std::span<std::byte> bytes,
               const std::string& label) {
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
  if (transport.rank() == root) {
    for (std::int32_t peer = 0; peer < transport.ep_size(); ++peer) {
      if (RankId{peer} != root) send.push_back({RankId{peer}, bytes});
    }
  } else {
    recv.push_back({root, bytes});
  }
  transport.start(send, recv, label)->wait();
}

// The error that `root` has, on every rank.
AgreedError broadcast_error(Transport& transport, RankId root, const std::optional<Error>& own) {
  std::string message = own ? own->what() : "";
  std::array<std::int64_t, 2> header = {own ? static_cast<std::int64_t>(own->code()) : 0,
                                        std::ssize(message)};
  broadcast(transport, root, std::as_writable_bytes(std::span(header)), "failed start of the run");
  message.resize(static_cast<std::size_t>(header[1]));
  broadcast(transport, root, std::as_writable_bytes(std::span(message)), "what went wrong");
  return {static_cast<ErrorCode>(header[0]), message};
}

}  // namespace

bool is_transport_failure(const Error& error) {
  return error.code() == ErrorCode::kTransport || error.code() == ErrorCode::kTimeout;
}

void agree_on_errors(Transport& transport, const std::string& label,
                     const std::function<void()>& step) {
  const std::optional<Error> own = error_of_step(step);
  if (own && is_transport_failure(*own)) throw Error(*own);
  // The lowest rank that has failed gives the largest value.
  std::int64_t most = own ? transport.ep_size() - std::int64_t(index(transport.rank())) : 0;
  all_reduce(transport, {&most, 1}, Reduction::kMax, label);
  if (most == 0) return;
  const RankId lowest{static_cast<std::int32_t>(transport.ep_size() - most)};
  throw broadcast_error(transport, lowest, transport.rank() == lowest ? own : std::nullopt);
}

void agree_on_errors(Engine& engine, const std::string& label, const std::function<void()>& step) {
  if (engine.transport() == nullptr) return step();
  agree_on_errors(*engine.transport(), label, step);
}

RunFingerprint fingerprint_of_run(const Model& model, Arithmetic arithmetic,
                                  const ExpertParallelOptions& options) {
  return {hash_of_config(model), hash_of_weights(model),
          hash_of_plan(model.config(), options) ^ hash_of_signature(model.plan()),
          hash_of_options(arithmetic, options)};
}

void check_same_run(Transport& transport, const RunFingerprint& mine) {
  static_assert(std::tuple_size_v<RunFingerprint> == std::size(kComparedParts));
  const auto all = all_gather<std::uint64_t>(transport, mine, "start of the run");
  for (std::int64_t part = 0; part < all.cols(); ++part) {
    for (std::int64_t rank = 1; rank < all.rows(); ++rank) {
      C2R_REQUIRE(all(rank, part) == all(0, part), kInvalidArgument,
                  "rank {} has {} than rank 0; give all ranks the same", rank,
                  kComparedParts[static_cast<std::size_t>(part)]);
    }
  }
}

}  // namespace c2r
