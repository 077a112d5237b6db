#include "c2r/engine/agreement.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/io/json.h"
#include "c2r/io/safetensors.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

class Fingerprint {
 public:
  void add(std::uint64_t value) { hash_ = mix_bits(hash_ + value); }
  void add(std::string_view text) {
    add(text.size());
    for (const char letter : text) add(static_cast<std::uint64_t>(letter));
  }
  void add(std::span<const std::byte> bytes) {
    add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  std::int64_t value() const { return static_cast<std::int64_t>(hash_); }

 private:
  std::uint64_t hash_ = 0;
};

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
    hash.add({piece.data(), count});
  }
}

std::int64_t hash_of_weights(const Model& model) {
  Fingerprint hash;
  for (const SafetensorsFile& shard : model.checkpoint().shards()) {
    std::ifstream file;
    file.rdbuf()->pubsetbuf(nullptr, 0);  // pieces are small and far from each other
    file.open(shard.path(), std::ios::binary);
    for (const auto& [name, tensor] : shard.tensors()) {
      hash.add(name);
      hash.add(static_cast<std::uint64_t>(tensor.dtype));
      for (const std::int64_t extent : tensor.shape) hash.add(static_cast<std::uint64_t>(extent));
      add_pieces(shard, tensor, file, hash);
    }
  }
  for (const LayerWeights& layer : model.weights().layers) {
    if (!layer.moe) continue;
    const WeightView& gate = layer.moe->gate;
    hash.add({gate.data, static_cast<std::size_t>(gate.num_bytes())});
  }
  return hash.value();
}

std::int64_t hash_of_config(const Model& model) {
  Fingerprint hash;
  hash.add(json_text(read_json_file(model.folder() / "config.json")));
  return hash.value();
}

// Lists and slots, which a plan brings.
std::int64_t hash_of_plan(const ModelConfig& config, const ExpertParallelOptions& options) {
  Fingerprint hash;
  for (const CollaborationConstraint& constraint : config.constraints) {
    hash.add(static_cast<std::uint64_t>(constraint.top_t));
    for (const ExpertId e : constraint.collaborators.all()) hash.add(index(e));
  }
  for (const Placement& placement : options.placements) {
    hash.add(static_cast<std::uint64_t>(placement.slots_per_rank()));
    for (const ExpertId e : placement.slots.all()) hash.add(index(e));
  }
  hash.add(static_cast<std::uint64_t>(options.dispatch.cluster.ranks_per_node));
  return hash.value();
}

std::int64_t hash_of_options(Arithmetic arithmetic, const ExpertParallelOptions& options) {
  Fingerprint hash;
  hash.add(static_cast<std::uint64_t>(arithmetic));
  hash.add(static_cast<std::uint64_t>(options.dispatch.mode));
  hash.add(static_cast<std::uint64_t>(options.dispatch.rule));
  hash.add(options.dispatch.seed);
  hash.add(static_cast<std::uint64_t>(options.dispatch.row_type));
  hash.add(static_cast<std::uint64_t>(options.num_chunks.value_or(0)));
  return hash.value();
}

constexpr std::string_view kComparedParts[] = {
    "another config.json", "other weights", "another plan",
    "another copy mode, row type, dtype or number of chunks"};

}  // namespace

void check_same_run(Transport& transport, const Model& model, Arithmetic arithmetic,
                    const ExpertParallelOptions& options) {
  const std::array<std::int64_t, std::size(kComparedParts)> mine = {
      hash_of_config(model), hash_of_weights(model), hash_of_plan(model.config(), options),
      hash_of_options(arithmetic, options)};
  const auto all = all_gather<std::int64_t>(transport, mine, "start of the run");
  for (std::int64_t part = 0; part < all.cols(); ++part) {
    for (std::int64_t rank = 1; rank < all.rows(); ++rank) {
      C2R_REQUIRE(all(rank, part) == all(0, part), kInvalidArgument,
                  "rank {} has {} than rank 0; give all ranks the same", rank,
                  kComparedParts[static_cast<std::size_t>(part)]);
    }
  }
}

}  // namespace c2r
