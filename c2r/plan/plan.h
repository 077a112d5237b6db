// The plan: placement and collaborator lists of each MoE layer, with predictions and provenance.
//
// Simulation, export, running, fine-tuning and the report read only the plan. Its file is JSON of
// version 3 and is checked strictly: an unknown version or key is an error. Versions 1 and 2 are
// read, too; docs/formats.md says what they lack. The same plan is always written as the same
// bytes, which do not depend on when or where it was made.
//   {"format": "c2r-plan", "version": 3,
//    "model": "...", "num_experts": 60, "top_k": 4,
//    "top_t": 30,                                   optional: the largest T of a layer's lists
//    "cluster": {...},                              as placement/cluster.h reads it
//    "layers": [{"layer_index": 0,                  the model's own index of the layer
//                "slots": [[...], ...],             [ep_size][slots_per_rank] experts; layers may
//                                                   have different numbers of slots
//                "wasted_slots": [[0, 5], ...],     optional: [rank, slot] of each slot whose
//                                                   expert another slot of the rank holds
//                "collaborators": [[...], ...]}],   [num_experts][T], if and only if top_t; layers
//                                                   may have different T
//    "homes": {                                     optional; one of its keys or both
//      "sequences": [{"trace_hash": "0123456789abcdef", "ranks": [...]}],       [num_sequences]
//      "signature": {"layer_index": 0, "num_tokens": 64,
//                    "weights": [[...], ...],       [ep_size][num_experts]
//                    "token_weights": {             optional
//                      "ids": [...],                [num_ids], ascending
//                      "weights": [[...], ...],     [num_ids][ep_size]
//                      "of_others": [...]}}},       [ep_size]
//    "predictions": [{"placement": "plan", "trace": "...", "num_tokens": 1000,
//                     "copy_mode": "per-rank", "replica_rule": "local-first", "homes": "uniform",
//                     "is_exact": true,
//                     "copies_per_token": [...],    [num_layers], and so the other columns; the
//                                                   three of copies are optional, together
//                     "wire_copies_per_token": [...], "inter_node_copies_per_token": [...],
//                     "imbalance": [...],
//                     "predicted_layer_time_s": [...]}],   optional, only with copies
//    "provenance": {"c2r_version": "...", "method": "...", "seed": 0,
//                   "inputs": [{"role": "trace", "name": "...",   of a trace one for each file
//                               "part": "even",                  optional: its sequences
//                               "hash": "0123456789abcdef"}],    optional: of the file's content
//                   "options": {"minimize": "copies", "max_imbalance": 1.1, ...},   optional
//                   "ended_by": "work"}}          optional: of a search
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/wasted_slots.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

inline constexpr std::int32_t kPlanVersion = 3;

struct PlanLayer {
  std::int32_t layer_index = 0;  // the model's own index: dense layers count
  Placement placement;
  // The empty slots, by rank and slot: of placements of other programs, and of the method balance.
  std::vector<WastedSlot> wasted_slots = {};
  Matrix<ExpertId> collaborators;  // [num_experts, T], best first; [0, 0] without Plan::top_t

  bool operator==(const PlanLayer&) const = default;
};

/// The predicted copies, imbalance and times of a placement of all layers on the tokens of one
/// trace.
struct Prediction {
  std::string placement = "plan";  // or the name of a baseline that the plan is compared with
  std::string trace;               // the name of the counted tokens
  std::int64_t num_tokens = 0;
  CopyMode copy_mode = CopyMode::kPerRank;
  ReplicaRule replica_rule = ReplicaRule::kFewestRanks;
  Homes homes = Homes::kUniform;
  bool is_exact = true;  // false: counted from pairs, so the copies are lower bounds
  // All three are empty if the copies are unknown because only loads were counted.
  std::vector<double> copies_per_token;             // [num_layers], Volume::copies_to_experts
  std::vector<double> wire_copies_per_token;        // [num_layers]
  std::vector<double> inter_node_copies_per_token;  // [num_layers]
  std::vector<double> imbalance;                    // [num_layers], of choices over ranks
  std::vector<double> predicted_layer_time_s;       // [num_layers] or empty

  bool has_copies() const { return !copies_per_token.empty(); }
  bool operator==(const Prediction&) const = default;
};

/// The home ranks of the sequences of one trace.
struct SequenceHomes {
  std::string trace_hash;     // content_hash() of the trace, 16 hexadecimal digits
  std::vector<RankId> ranks;  // [num_sequences], in the order of the trace

  bool operator==(const SequenceHomes&) const = default;
};

/// What token ids say of the home of a sequence, before any of its tokens runs: token_scores().
struct TokenWeights {
  std::vector<TokenId> ids;       // [num_ids], ascending
  Matrix<double> weights;         // [num_ids, ep_size], of a token of the id for the rank
  std::vector<double> of_others;  // [ep_size], of a token of any other id

  bool operator==(const TokenWeights&) const = default;
};

/// Assigns home ranks to sequences: by the ids of their tokens, if it has token weights; else, and
/// where experts are known from an earlier turn, by the experts that their first tokens choose:
/// home_of().
struct HomeSignature {
  std::int32_t layer_index = 0;  // of the layer of the plan whose choices are counted
  std::int64_t num_tokens = 0;   // of a sequence, from its beginning; at least 1
  Matrix<double> weights;        // [ep_size, num_experts], of a choice of the expert for the rank
  std::optional<TokenWeights> token_weights = {};

  bool operator==(const HomeSignature&) const = default;
};

/// The home ranks of sequences, chosen together with the placement.
struct PlanHomes {
  std::vector<SequenceHomes> sequences;    // of known traces
  std::optional<HomeSignature> signature;  // for new sequences

  bool operator==(const PlanHomes&) const = default;
};

/// @param topk_idx the choices of a sequence in the signature's layer, from its first token on. If
///        the sequence has fewer than `signature.num_tokens` tokens, all of it counts.
///        [num_tokens, top_k]
/// @returns the home of the sequence: the rank with the largest sum of weights over the choices of
///          the first `signature.num_tokens` tokens, and the lowest of equal ranks
/// @throws Error(kInvalidArgument) if a choice is neither an expert of the signature nor kNoExpert
RankId home_of(const HomeSignature& signature, MatrixView<const ExpertId> topk_idx);

struct PlanInput {
  std::string role;  // "trace", "statistics", "cluster"
  std::string name;
  std::string hash = {};  // of the content, which recognizes a renamed file; may be empty
  std::optional<SequencePart> part = {};  // of a trace: the sequences that were read

  /// @returns "NAME, PART", or the name alone without a part
  std::string text() const;

  bool operator==(const PlanInput&) const = default;
};

/// A setting of the run that made the plan, as it was resolved: {"max_imbalance", 1.1}.
struct PlanOption {
  using Value = std::variant<double, std::string>;
  std::string name;
  Value value;

  bool operator==(const PlanOption&) const = default;
};

struct Provenance {
  std::string c2r_version;
  std::string method;  // that placed the experts: the optimizer or a baseline
  std::uint64_t seed = 0;
  std::vector<PlanInput> inputs;
  std::vector<PlanOption> options;  // each name once
  // How the search ended: "work" if all of it was done; "seconds" or "interrupt" if it was cut
  // short, with the best placement so far. Empty without a search.
  std::string ended_by;

  bool operator==(const Provenance&) const = default;
};

struct Plan {
  std::string model;
  std::int32_t num_experts = 0, top_k = 0;
  std::optional<std::int32_t> top_t;  // the largest T of the layers' lists
  Cluster cluster;
  std::vector<PlanLayer> layers;  // [num_layers], layer_index ascending
  std::optional<PlanHomes> homes;
  std::vector<Prediction> predictions;
  Provenance provenance;

  std::int64_t num_layers() const { return std::ssize(layers); }
  bool operator==(const Plan&) const = default;
};

/// @param placements [num_layers]
/// @returns a plan for the header's model, without lists and predictions. Repeats become wasted.
Plan plan_of(const TraceHeader& header, const Cluster& cluster, std::vector<Placement> placements,
             Provenance provenance);

/// Checks that the parts agree: every placement is valid (check_wasted_slots()) and for the plan's
/// experts and cluster, collaborators are there as top_t says, homes are ranks of the cluster,
/// columns are as long as there are layers, and numbers are finite.
/// @throws Error(kInvalidArgument), naming the layer or the field
void check_plan(const Plan& plan);

/// @param traffic under which the volumes were counted
/// @param volumes [num_layers]
/// @param times [num_layers], or empty
/// @returns a prediction without names
/// @throws Error(kInvalidArgument) if there are no volumes, other numbers of times than of volumes,
///         or layers of different numbers of tokens
Prediction make_prediction(const TrafficModel& traffic, std::span<const Volume> volumes,
                           std::span<const PredictedLayerTime> times);

/// @returns how many slots of the plan are wasted, as the beginning of a sentence: "2 slots in 1 of
///          3 layers are wasted: their rank holds the expert in another slot, too (the first is
///          slot 5 of rank 0 in layer 3)"; nothing if none is
std::optional<std::string> wasted_slots_text(const Plan& plan);

/// @returns the text of the plan's file
/// @throws as check_plan()
std::string plan_to_text(const Plan& plan);
/// @param place where the text is from, for messages
/// @throws Error(kInvalidFile), naming what is wrong
Plan parse_plan(std::string_view text, std::string_view place);

Plan read_plan(const std::filesystem::path& path);
void write_plan(const Plan& plan, const std::filesystem::path& path);

}  // namespace c2r
