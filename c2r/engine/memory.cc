// Reads what Linux says of the machine, and adds up the weights in the slots of ranks.
#include "c2r/engine/memory.h"

#include <fmt/ranges.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/io/memory.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

// FNV-1a, of the machine and of what is added.
class MachineId {
 public:
  MachineId() {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    for (char letter = 0; file.get(letter);) add(static_cast<std::uint8_t>(letter));
  }
  void add(std::uint8_t byte) { hash_ = (hash_ ^ byte) * 1099511628211U; }
  std::int64_t value() const { return static_cast<std::int64_t>(hash_); }

 private:
  std::uint64_t hash_ = 14695981039346656037U;
};

// The ranks with the same id as this one, ascending.
std::vector<RankId> ranks_with(std::int64_t id, Transport& transport, const char* label) {
  const auto ids = all_gather<std::int64_t>(transport, {&id, 1}, label);
  std::vector<RankId> ranks;
  for (std::int32_t rank = 0; rank < transport.ep_size(); ++rank) {
    if (ids(rank, 0) == id) ranks.push_back(RankId{rank});
  }
  return ranks;
}

std::int64_t expert_bytes(const MoeWeights& moe) {
  std::int64_t sum = 0;
  for (const ExpertWeights& expert : moe.experts) sum += expert.num_bytes();
  return sum;
}

void check_placements(const ModelConfig& config, std::span<const Placement> placements,
                      std::span<const RankId> ranks) {
  C2R_REQUIRE(std::ssize(placements) == config.num_moe_layers(), kInvalidArgument,
              "there are {} placements, but the model has {} MoE layers", placements.size(),
              config.num_moe_layers());
  for (const Placement& placement : placements) {
    C2R_REQUIRE(placement.num_experts == config.num_experts, kInvalidArgument,
                "a placement is for {} experts, but the model has {}", placement.num_experts,
                config.num_experts);
    for (const RankId rank : ranks) {
      C2R_REQUIRE(0 <= static_cast<std::int32_t>(rank) &&
                      std::int64_t(index(rank)) < placement.slots.rows(),
                  kInvalidArgument, "rank {} is not one of the placement's {}",
                  static_cast<std::int32_t>(rank), placement.slots.rows());
    }
    for (const ExpertId e : placement.slots.all()) {
      C2R_REQUIRE(e == kNoExpert || (0 <= static_cast<std::int32_t>(e) &&
                                     static_cast<std::int32_t>(e) < config.num_experts),
                  kInvalidArgument, "a slot names expert {}, but the model has {}",
                  static_cast<std::int32_t>(e), config.num_experts);
    }
  }
}

}  // namespace

std::vector<RankId> ranks_of_this_machine(Transport& transport) {
  return ranks_with(MachineId().value(), transport, "machines of the ranks");
}

int num_threads_of_rank(Transport& transport) {
  cpu_set_t processors;
  CPU_ZERO(&processors);
  sched_getaffinity(0, sizeof(processors), &processors);
  MachineId id;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) id.add(CPU_ISSET(cpu, &processors) ? 1 : 0);
  const auto sharing = ranks_with(id.value(), transport, "processors of the ranks");
  return std::max(1, default_num_threads() / static_cast<int>(sharing.size()));
}

std::int64_t weight_bytes(const Model& model, std::span<const Placement> placements,
                          std::span<const RankId> ranks) {
  check_placements(model.config(), placements, ranks);
  std::int64_t sum = model.checkpoint().num_bytes();
  std::size_t moe_layer = 0;
  for (const LayerWeights& layer : model.weights().layers) {
    if (!layer.moe) continue;
    std::set<ExpertId> experts;
    for (const RankId rank : ranks) {
      const auto slots = placements[moe_layer].slots.row(static_cast<std::int64_t>(index(rank)));
      experts.insert(slots.begin(), slots.end());
    }
    experts.erase(kNoExpert);
    sum -= expert_bytes(*layer.moe);
    for (const ExpertId e : experts) sum += layer.moe->experts[index(e)].num_bytes();
    ++moe_layer;
  }
  return sum;
}

void check_memory(const Model& model, std::span<const Placement> placements,
                  std::span<const RankId> ranks, std::int64_t available_bytes) {
  const auto megabytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  std::vector<std::size_t> ids;
  for (const RankId rank : ranks) ids.push_back(index(rank));
  const std::int64_t needed = weight_bytes(model, placements, ranks);
  C2R_REQUIRE(needed <= available_bytes, kUnsupported,
              "the machine of rank{} {} has {:.2f} MB of memory available, but its weights are "
              "{:.2f} MB; spread the ranks over more machines",
              ranks.size() > 1 ? "s" : "", fmt::join(ids, ", "), megabytes(available_bytes),
              megabytes(needed));
}

std::vector<RankMemory> gather_memory(Transport& transport, const Model& model) {
  RankMemory mine{.resident_bytes = resident_bytes(), .weight_bytes = 0};
  for (const SafetensorsFile& shard : model.checkpoint().shards()) {
    const auto bytes = resident_bytes(shard.bytes());
    if (!bytes) mine.weight_bytes.reset();
    if (mine.weight_bytes) *mine.weight_bytes += *bytes;
  }
  std::vector<RankMemory> all;
  for (const auto& one : gather<RankMemory>(transport, {&mine, 1}, "memory of the ranks")) {
    all.push_back(one.at(0));
  }
  return all;
}

}  // namespace c2r
