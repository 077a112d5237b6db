// Writes a plan as JSON text, and reads it.
#include <algorithm>
#include <limits>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/io/matrix_json.h"
#include "c2r/plan/homes/homes_json_internal.h"
#include "c2r/plan/plan.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr std::string_view kPlanFormat = "c2r-plan";

Json layer_to_json(const PlanLayer& layer) {
  Json json = {{"layer_index", layer.layer_index},
               {"slots", matrix_to_json(with_wasted_slots(layer.placement, layer.wasted_slots))}};
  for (const auto& [rank, slot, expert] : layer.wasted_slots) {
    json["wasted_slots"].push_back(Json::array({static_cast<std::int32_t>(rank), slot}));
  }
  if (layer.collaborators.rows() > 0) json["collaborators"] = matrix_to_json(layer.collaborators);
  return json;
}

Json prediction_to_json(const Prediction& p) {
  Json json = {{"placement", p.placement},
               {"trace", p.trace},
               {"num_tokens", p.num_tokens},
               {"copy_mode", name_of(p.copy_mode)},
               {"replica_rule", name_of(p.replica_rule)},
               {"homes", name_of(p.homes)},
               {"is_exact", p.is_exact}};
  if (p.has_copies()) {
    json["copies_per_token"] = p.copies_per_token;
    json["wire_copies_per_token"] = p.wire_copies_per_token;
    json["inter_node_copies_per_token"] = p.inter_node_copies_per_token;
  }
  json["imbalance"] = p.imbalance;
  if (!p.predicted_layer_time_s.empty()) json["predicted_layer_time_s"] = p.predicted_layer_time_s;
  return json;
}

Json provenance_to_json(const Provenance& provenance) {
  Json inputs = Json::array();
  for (const auto& [role, name, hash, part] : provenance.inputs) {
    inputs.push_back({{"role", role}, {"name", name}});
    if (part) inputs.back()["part"] = name_of(*part);
    if (!hash.empty()) inputs.back()["hash"] = hash;
  }
  Json json = {{"c2r_version", provenance.c2r_version},
               {"method", provenance.method},
               {"seed", provenance.seed},
               {"inputs", inputs}};
  for (const PlanOption& option : provenance.options) {
    Json& json_value = json["options"][option.name];
    std::visit([&](const auto& number_or_text) { json_value = number_or_text; }, option.value);
  }
  if (!provenance.ended_by.empty()) json["ended_by"] = provenance.ended_by;
  return json;
}

// Objects, and arrays of objects, have lines of their own; an array of numbers is one line. So the
// file is readable, and a change of a layer's slots changes few lines.
void write_value(const Json& value, std::size_t indent, std::string& out) {
  const bool has_objects = value.is_array() && std::ranges::any_of(value, [](const Json& element) {
                             return element.is_object();
                           });
  if (value.empty() || !(value.is_object() || has_objects)) {
    out += json_text(value);
    return;
  }
  std::string_view separator = value.is_object() ? "{\n" : "[\n";
  for (const auto& item : value.items()) {
    out += separator;
    out.append(indent + 2, ' ');
    if (value.is_object()) {
      out += json_text(item.key()) + ": ";
    }
    write_value(item.value(), indent + 2, out);
    separator = ",\n";
  }
  out += '\n';
  out.append(indent, ' ');
  out += value.is_object() ? '}' : ']';
}

// Before version 3 the part of a trace stood at the end of its name: "TRACE, PART".
void split_part(PlanInput& input) {
  if (input.role != "trace") return;
  for (const SequencePart part : {SequencePart::kAll, SequencePart::kEven, SequencePart::kOdd,
                                  SequencePart::kFirstHalf, SequencePart::kSecondHalf}) {
    const std::string suffix = fmt::format(", {}", name_of(part));
    if (!input.name.ends_with(suffix)) continue;
    input.part = part;
    input.name.resize(input.name.size() - suffix.size());
    return;
  }
}

// The names that the errors of a value need.
struct Reader {
  std::string_view place;
  std::int64_t version = kPlanVersion;  // of the file, see check_format()

  std::int32_t int32(const Json& object, std::string_view key, std::int32_t min) const {
    return static_cast<std::int32_t>(
        json_integer(json_at(object, key, place), min, INT32_MAX, key, place));
  }
  std::int64_t count(const Json& object, std::string_view key) const {
    return json_integer(json_at(object, key, place), 0, INT64_MAX, key, place);
  }
  std::string text(const Json& object, std::string_view key) const {
    return json_string(json_at(object, key, place), key, place);
  }
  const Json::array_t& array(const Json& object, std::string_view key) const {
    return json_array(json_at(object, key, place), key, place);
  }
  std::vector<double> optional_column(const Json& object, std::string_view key) const {
    const bool is_optional = version >= 3;
    if (is_optional && !object.contains(key)) return {};
    return column(object, key);
  }
  std::vector<double> column(const Json& object, std::string_view key) const {
    std::vector<double> values;
    for (const Json& value : array(object, key)) {
      values.push_back(json_number(value, 0, key, place));
    }
    return values;
  }

  Matrix<ExpertId> experts(const Json& object, std::string_view key,
                           std::int32_t num_experts) const {
    const auto& rows = array(object, key);
    const std::size_t cols = rows.empty() ? 0 : json_array(rows[0], key, place).size();
    for (const Json& row : rows) {  // before memory is asked for
      const std::size_t size = json_array(row, key, place).size();
      C2R_REQUIRE(size == cols, kInvalidFile, "{}: {} has rows of {} and of {} experts", place, key,
                  cols, size);
    }
    Matrix<ExpertId> matrix(std::ssize(rows), static_cast<std::int64_t>(cols));
    auto out = matrix.all().begin();
    for (const Json& row : rows) {
      for (const Json& value : row) {
        *out++ = ExpertId{static_cast<std::int32_t>(
            json_integer(value, 0, num_experts - 1, fmt::format("an expert in {}", key), place))};
      }
    }
    return matrix;
  }

  // Empties the slots that the layer calls wasted. check_plan() says which ones are not.
  void take_wasted_slots(const Json& json, PlanLayer& layer) const {
    Matrix<ExpertId>& slots = layer.placement.slots;
    for (const Json& pair : array(json, "wasted_slots")) {
      C2R_REQUIRE(json_array(pair, "a wasted slot", place).size() == 2, kInvalidFile,
                  "{}: a wasted slot has {} numbers, but must have a rank and a slot", place,
                  pair.size());
      const auto rank = json_integer(pair[0], 0, INT32_MAX, "the rank of a wasted slot", place);
      const auto slot = json_integer(pair[1], 0, INT32_MAX, "a wasted slot", place);
      WastedSlot wasted{.rank = RankId{static_cast<std::int32_t>(rank)},
                        .slot = static_cast<std::int32_t>(slot)};
      if (rank < slots.rows() && slot < slots.cols()) {
        wasted.expert = std::exchange(slots(rank, slot), kNoExpert);
      }
      layer.wasted_slots.push_back(wasted);
    }
  }

  PlanLayer layer(const Json& json, std::int32_t num_experts) const {
    json_check_keys(json, {"layer_index", "slots", "wasted_slots", "collaborators"}, "a layer",
                    place);
    PlanLayer layer{
        .layer_index = int32(json, "layer_index", 0),
        .placement = {.num_experts = num_experts, .slots = experts(json, "slots", num_experts)}};
    if (json.contains("wasted_slots")) take_wasted_slots(json, layer);
    if (json.contains("collaborators")) {
      layer.collaborators = experts(json, "collaborators", num_experts);
    }
    return layer;
  }

  Prediction prediction(const Json& json) const {
    json_check_keys(json,
                    {"placement", "trace", "num_tokens", "copy_mode", "replica_rule", "homes",
                     "is_exact", "copies_per_token", "wire_copies_per_token",
                     "inter_node_copies_per_token", "imbalance", "predicted_layer_time_s"},
                    "a prediction", place);
    Prediction p{
        .placement = text(json, "placement"),
        .trace = text(json, "trace"),
        .num_tokens = count(json, "num_tokens"),
        .copy_mode = parse_copy_mode(text(json, "copy_mode")),
        .replica_rule = parse_replica_rule(text(json, "replica_rule")),
        .homes = parse_homes(text(json, "homes")),
        .is_exact = json_boolean(json_at(json, "is_exact", place), "is_exact", place),
        .copies_per_token = optional_column(json, "copies_per_token"),
        .wire_copies_per_token = optional_column(json, "wire_copies_per_token"),
        .inter_node_copies_per_token = optional_column(json, "inter_node_copies_per_token"),
        .imbalance = column(json, "imbalance")};
    if (json.contains("predicted_layer_time_s")) {
      p.predicted_layer_time_s = column(json, "predicted_layer_time_s");
    }
    return p;
  }

  Provenance provenance(const Json& json) const {
    json_check_keys(json, {"c2r_version", "method", "seed", "inputs", "options", "ended_by"},
                    "provenance", place);
    Provenance result{.c2r_version = text(json, "c2r_version"),
                      .method = text(json, "method"),
                      .seed = static_cast<std::uint64_t>(count(json, "seed"))};
    for (const Json& input : array(json, "inputs")) result.inputs.push_back(input_of(input));
    if (json.contains("options")) result.options = options(json["options"]);
    if (json.contains("ended_by")) result.ended_by = text(json, "ended_by");
    return result;
  }

  PlanInput input_of(const Json& json) const {
    PlanInput input{.role = text(json, "role"), .name = text(json, "name")};
    if (json.contains("hash")) input.hash = text(json, "hash");
    if (version < 3) {
      json_check_keys(json, {"role", "name", "hash"}, "an input", place);
      split_part(input);
      return input;
    }
    json_check_keys(json, {"role", "name", "part", "hash"}, "an input", place);
    if (json.contains("part")) input.part = parse_sequence_part(text(json, "part"));
    return input;
  }

  std::vector<PlanOption> options(const Json& json) const {
    C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: options must be an object", place);
    std::vector<PlanOption> options;
    for (const auto& item : json.items()) {
      const Json& value = item.value();
      C2R_REQUIRE(value.is_number() || value.is_string(), kInvalidFile,
                  "{}: the option '{}' must be a number or a text", place, shown(item.key()));
      options.push_back({item.key(), value.is_number() ? PlanOption::Value(value.get<double>())
                                                       : value.get<std::string>()});
    }
    return options;
  }
};

// Checked before all other keys, because another version may have other keys.
std::int64_t read_version(const Json& json, const Reader& reader) {
  const std::string format = reader.text(json, "format");
  C2R_REQUIRE(format == kPlanFormat, kInvalidFile, "{}: the format is '{}', not '{}'", reader.place,
              shown(format), kPlanFormat);
  const std::int64_t version = reader.count(json, "version");
  C2R_REQUIRE(1 <= version && version <= kPlanVersion, kInvalidFile,
              "{}: the plan has version {}, but this program reads versions 1 to {}", reader.place,
              version, kPlanVersion);
  return version;
}

// Before version 3 all layers had the same T.
void check_same_t(const Plan& plan, const Reader& reader) {
  for (const PlanLayer& layer : plan.layers) {
    C2R_REQUIRE(layer.collaborators.cols() == plan.top_t.value_or(0), kInvalidFile,
                "{}: layer {} has lists of {} collaborators, but top_t is {}, and layers of a plan "
                "of version {} have the same",
                reader.place, layer.layer_index, layer.collaborators.cols(), plan.top_t.value_or(0),
                reader.version);
  }
}

Plan plan_from_json(const Json& json, const Reader& reader) {
  if (reader.version < 3) {
    json_check_keys(json,
                    {"format", "version", "model", "num_experts", "top_k", "top_t", "cluster",
                     "layers", "predictions", "provenance"},
                    "the plan", reader.place);
  } else {
    json_check_keys(json,
                    {"format", "version", "model", "num_experts", "top_k", "top_t", "cluster",
                     "layers", "homes", "predictions", "provenance"},
                    "the plan", reader.place);
  }
  Plan plan{
      .model = reader.text(json, "model"),
      .num_experts = static_cast<std::int32_t>(json_integer(
          json_at(json, "num_experts", reader.place), 1, kMaxExperts, "num_experts", reader.place)),
      .top_k = reader.int32(json, "top_k", 1),
      .cluster = cluster_from_json(json_at(json, "cluster", reader.place), reader.place)};
  if (json.contains("top_t")) plan.top_t = reader.int32(json, "top_t", 1);
  for (const Json& layer : reader.array(json, "layers")) {
    plan.layers.push_back(reader.layer(layer, plan.num_experts));
  }
  if (reader.version < 3) check_same_t(plan, reader);
  if (json.contains("homes")) {
    plan.homes = internal::homes_from_json(json["homes"], plan.num_experts, reader.place);
  }
  for (const Json& prediction : reader.array(json, "predictions")) {
    plan.predictions.push_back(reader.prediction(prediction));
  }
  plan.provenance = reader.provenance(json_at(json, "provenance", reader.place));
  check_plan(plan);
  return plan;
}

}  // namespace

std::string plan_to_text(const Plan& plan) {
  check_plan(plan);
  Json json = {{"format", kPlanFormat},
               {"version", kPlanVersion},
               {"model", plan.model},
               {"num_experts", plan.num_experts},
               {"top_k", plan.top_k}};
  if (plan.top_t) json["top_t"] = *plan.top_t;
  json["cluster"] = cluster_to_json(plan.cluster);
  json["layers"] = Json::array();
  for (const PlanLayer& layer : plan.layers) json["layers"].push_back(layer_to_json(layer));
  if (plan.homes) json["homes"] = internal::homes_to_json(*plan.homes);
  json["predictions"] = Json::array();
  for (const Prediction& p : plan.predictions) json["predictions"].push_back(prediction_to_json(p));
  json["provenance"] = provenance_to_json(plan.provenance);
  std::string text;
  write_value(json, 0, text);
  return text + '\n';
}

Plan parse_plan(std::string_view text, std::string_view place) {
  const Json json = parse_json(text, place);
  try {
    Reader reader{.place = place};
    reader.version = read_version(json, reader);
    return plan_from_json(json, reader);
  } catch (const Error& e) {
    // check_plan() does not know the file, so its error is thrown again with the name.
    if (e.code() != ErrorCode::kInvalidArgument) throw;
    C2R_THROW(kInvalidFile, "{}: {}", place, e.what());
  }
}

}  // namespace c2r
