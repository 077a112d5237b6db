// Tells our own files from each other and from those of other programs, and sums up what they hold.
#include "c2r/cli/commands/inspect_file.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "c2r/cli/inputs.h"
#include "c2r/cli/printable.h"
#include "c2r/collaboration/collaboration.h"
#include "c2r/core/error.h"
#include "c2r/import/import.h"
#include "c2r/import/recognize.h"
#include "c2r/io/file.h"
#include "c2r/io/safetensors.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/hardware.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/report/page/report_inputs.h"
#include "c2r/report/wrap.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r::cli {
namespace {

std::string indices_text(std::span<const std::int32_t> indices) {
  const bool is_run = indices.back() - indices.front() + 1 == std::ssize(indices);
  return is_run ? fmt::format("{} to {}", indices.front(), indices.back())
                : fmt::format("{} indices from {} to {}", indices.size(), indices.front(),
                              indices.back());
}

Json facts_of(const TraceHeader& header) {
  return {{"model", header.model.empty() ? Json("unnamed") : Json(header.model)},
          {"num_layers", header.num_layers()},
          {"layer_indices", indices_text(header.layer_indices)},
          {"num_experts", header.num_experts},
          {"top_k", header.top_k}};
}

FileDescription describe_trace(const std::string& path) {
  const Trace trace(path);
  FileDescription trace_of{.what = "a routing trace: the experts of each token in each MoE layer",
                           .facts = facts_of(trace.header())};
  trace_of.facts["num_tokens"] = trace.num_tokens();
  trace_of.facts["num_sequences"] = trace.sequence_starts().size();
  trace_of.facts["has_weights"] = trace.has_weights();
  trace_of.facts["has_token_ids"] = trace.has_token_ids();
  trace_of.notes = {"c2r analyze measures it; c2r plan places experts by it"};
  return trace_of;
}

FileDescription describe_statistics(const std::string& path) {
  const CollaborationStatistics statistics = read_statistics(path);
  FileDescription counts{.what = statistics.has_pairs
                                     ? "statistics: how often experts were chosen together"
                                     : "statistics: loads of experts, without pairs",
                         .facts = facts_of(statistics.header)};
  counts.facts["num_tokens"] = std::ranges::max(statistics.num_tokens);
  counts.notes = {statistics.has_pairs ? "c2r analyze measures it; c2r collaborators lists from it"
                                       : "c2r plan --method balance places experts by it"};
  return counts;
}

FileDescription describe_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  const auto format = file.metadata().find("format");
  const std::string name = format == file.metadata().end() ? "" : format->second;
  if (name == kTraceFormat) return describe_trace(path);
  if (name == kStatisticsFormat) return describe_statistics(path);
  return {.what = "a safetensors file that c2r did not write",
          .facts = {{"num_tensors", file.tensors().size()}},
          .notes = {"if it is a part of a model, give the folder with its config.json"}};
}

Json slots_json(const Plan& plan) {
  std::set<std::int32_t> slots;
  for (const PlanLayer& layer : plan.layers) slots.insert(layer.placement.slots_per_rank());
  if (slots.size() == 1) return *slots.begin();
  return fmt::format("{} to {}", *slots.begin(), *slots.rbegin());
}

FileDescription describe_plan(const std::string& path) {
  const Plan plan = read_plan(path);
  std::vector<std::int32_t> indices;
  for (const PlanLayer& layer : plan.layers) indices.push_back(layer.layer_index);
  FileDescription described{.what = "a plan: the placement of the experts of each MoE layer"};
  Json& facts = described.facts;
  facts = facts_of({.model = plan.model,
                    .num_experts = plan.num_experts,
                    .top_k = plan.top_k,
                    .layer_indices = indices});
  facts["cluster"] =
      fmt::format("{} x {} ranks", plan.cluster.num_nodes, plan.cluster.ranks_per_node);
  facts["slots_per_rank"] = slots_json(plan);
  facts["has_replicas"] = std::ranges::any_of(
      plan.layers, [](const PlanLayer& layer) { return has_replicas(layer.placement); });
  facts["collaborators"] = plan.top_t ? Json(fmt::format("lists of up to {}", *plan.top_t))
                                      : Json("none: routing is not constrained");
  facts["method"] = plan.provenance.method;
  std::string inputs;
  for (const PlanInput& input : plan.provenance.inputs) {
    inputs += (inputs.empty() ? "" : "; ") + input.text();
  }
  if (!inputs.empty()) facts["made_from"] = inputs;
  if (!plan.predictions.empty()) {
    const Prediction& last = plan.predictions.back();
    facts["predicted_on"] = fmt::format("{} tokens of {}", last.num_tokens, last.trace);
    facts["rank_imbalance"] = mean_over_layers(last.imbalance);
    if (last.has_copies()) {
      facts["wire_copies_per_token"] = mean_over_layers(last.wire_copies_per_token);
    }
  }
  described.notes = {"c2r simulate counts it on a trace; c2r export writes it for an engine"};
  return described;
}

FileDescription describe_report(const Json& report, const std::string& what,
                                const std::string& path) {
  const Json& answer = json_at(report, "answer", path);
  return {.what = what,
          .facts = {{"is_advised",
                     json_boolean(json_at(answer, "is_advised", path), "is_advised", path)}},
          .notes = {json_string(json_at(answer, "sentence", path), "sentence", path)}};
}

// A command's JSON, known by two of its keys, and the numbers and texts of it that are shown.
struct PrintedJson {
  const char* first_key;
  const char* second_key;
  const char* what;
  std::vector<const char*> shown;
  std::vector<std::string> notes;
};

std::vector<PrintedJson> printed_jsons() {
  return {{.first_key = "placements",
           .second_key = "base",
           .what = "what c2r compare --json printed",
           .notes = {"c2r report --compare shows it"}},
          {.first_key = "steps", .second_key = "base", .what = "what c2r simulate --json printed"},
          {.first_key = "mean_expert_imbalance",
           .second_key = "layers",
           .what = "what c2r analyze --json printed",
           .shown = {"model", "num_layers", "num_experts", "top_k", "mean_expert_imbalance"}},
          {.first_key = "top_t",
           .second_key = "collaborators",
           .what = "lists of collaborators, which c2r collaborators made",
           .shown = {"model", "num_experts", "top_k", "top_t"},
           .notes = {"c2r collaborators --config writes such lists into a config.json; "
                     "python -m c2r.finetune --lists takes them"}},
          {.first_key = "phases",
           .second_key = "prompt_tokens",
           .what = "what c2r bench model --json printed",
           .shown = {"model", "dtype"}}};
}

std::optional<FileDescription> describe_printed(const Json& json) {
  for (const PrintedJson& printed : printed_jsons()) {
    const Json* const first = json_find(json, printed.first_key);
    if (first == nullptr || json_find(json, printed.second_key) == nullptr) continue;
    FileDescription described{.what = printed.what, .notes = printed.notes};
    for (const char* const key : printed.shown) {
      if (const Json* const value = json_find(json, key)) described.facts[key] = *value;
    }
    if (first->is_array()) {
      described.facts[fmt::format("num_{}", printed.first_key)] = first->size();
    }
    return described;
  }
  return std::nullopt;
}

// A config.json, or the index of a checkpoint's files.
FileDescription describe_part_of_model(const Json& json, const std::string& path) {
  const bool is_config = json_find(json, "model_type") != nullptr;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  FileDescription part{
      .what = is_config ? "the configuration of a model" : "the index of a model's weights",
      .notes = {fmt::format("c2r inspect {} says whether c2r runs the model of this folder",
                            folder.empty() ? "." : folder.string())}};
  if (is_config) {
    part.facts["model_type"] = json["model_type"];
  } else if (json["weight_map"].is_object()) {
    part.facts["num_tensors"] = json["weight_map"].size();
  }
  return part;
}

// A JSON file of c2r, or of a cluster or its hardware; nothing if it is neither.
std::optional<FileDescription> describe_json(const Json& json, const std::string& path) {
  const auto has = [&](const char* key) { return json_find(json, key) != nullptr; };
  if (has("format") && json["format"] == "c2r-plan") return describe_plan(path);
  if (has("format") && json["format"] == "c2r-report")
    return describe_report(json, "the data of a report", path);
  if (has("num_nodes") && has("ranks_per_node")) {
    (void)cluster_from_json(json, path);
    return FileDescription{.what = "a cluster, for --cluster", .facts = json};
  }
  if (has("intra_node") && has("inter_node")) {
    (void)read_hardware(path);
    return FileDescription{.what = "hardware, for --hardware", .facts = json};
  }
  if (has("model_type") || has("weight_map")) return describe_part_of_model(json, path);
  if (has("variants") && has("problem")) {
    Json facts = read_layer_bench(path);
    const std::string what = facts["what"];
    for (const char* key : {"name", "what"}) facts.erase(key);
    facts["variants"] = facts["variants"].size();
    return FileDescription{.what = fmt::format("what c2r bench {} --json printed", what),
                           .facts = std::move(facts),
                           .notes = {"c2r report --bench shows it"}};
  }
  return describe_printed(json);
}

std::optional<FileDescription> describe_scores(const std::string& path) {
  Json scores;
  try {
    scores = read_scores(path);
  } catch (const Error&) {
    return std::nullopt;  // then it is something else
  }
  scores.erase("name");
  return FileDescription{.what = "what c2r score --json printed",
                         .facts = std::move(scores),
                         .notes = {"c2r report --score shows it"}};
}

// A page of `c2r report`, described by the data in it.
std::optional<FileDescription> describe_page(const std::string& path) {
  constexpr std::string_view kBegin = "<script type=\"application/json\" id=\"report-data\">";
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const std::string_view page(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t begin = page.starts_with("<!DOCTYPE html>") ? page.find(kBegin) : page.npos;
  if (begin == page.npos) return std::nullopt;
  const std::string_view data = page.substr(begin + kBegin.size());
  return describe_report(parse_json(data.substr(0, data.find("</script>")), path),
                         "a page of c2r report, for a browser", path);
}

std::string import_note(const std::string& format, const std::string& path) {
  const ImportKind makes = find_import_format(format)->makes;
  return fmt::format("c2r import --from {} {} makes {} of it; c2r help import says what it needs",
                     format, path,
                     makes == ImportKind::kTrace        ? "a trace"
                     : makes == ImportKind::kStatistics ? "statistics"
                                                        : "a plan");
}

std::optional<FileDescription> describe_of_others(const std::string& path) {
  const RecognizedInput input = recognize_input(path);
  if (input.format.empty()) return std::nullopt;
  return FileDescription{.what = input.what,
                         .facts = {{"format", input.format}},
                         .notes = {import_note(input.format, path)}};
}

bool is_json_text(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const auto first = std::ranges::find_if(bytes, [](std::byte byte) {
    return byte != std::byte{' '} && byte != std::byte{'\n'} && byte != std::byte{'\t'} &&
           byte != std::byte{'\r'};
  });
  return first != bytes.end() && *first == std::byte{'{'};
}

bool is_safetensors(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return bytes.size() > 9 && bytes[8] == std::byte{'{'} && bytes[7] == std::byte{0};
}

std::string label_of(std::string key) {
  if (key.starts_with("num_")) key.erase(0, 4);
  std::ranges::replace(key, '_', ' ');
  return key;
}

std::string value_text(const Json& value) {
  if (value.is_string()) return printable(value.get<std::string>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_float()) return fmt::format("{:.6g}", value.get<double>());
  return printable(json_text(value));
}

}  // namespace

std::optional<FileDescription> describe_file(const std::string& path) {
  std::error_code missing;
  if (std::filesystem::is_directory(path, missing)) {
    return path_exists(std::filesystem::path(path) / "config.json") ? std::nullopt
                                                                    : describe_of_others(path);
  }
  if (!std::filesystem::is_regular_file(path, missing)) return std::nullopt;
  if (is_safetensors(path)) return describe_safetensors(path);
  if (is_json_text(path)) {
    if (auto of_others = describe_of_others(path)) return of_others;
    if (auto scores = describe_scores(path)) return scores;
    if (auto ours = describe_json(read_json_file(path), path)) return ours;
  }
  if (auto page = describe_page(path)) return page;
  if (auto of_others = describe_of_others(path)) return of_others;
  C2R_THROW(
      kInvalidFile,
      "'{}' is no file that c2r knows: it is {}; `c2r help import` lists the formats of other "
      "programs",
      path, recognize_input(path).what);
}

std::string description_text(const std::string& path, const FileDescription& description) {
  std::string text = wrap_text(printable(path + ": " + description.what)) + "\n";
  std::size_t width = 0;
  for (const auto& [key, value] : description.facts.items()) {
    width = std::max(width, label_of(key).size());
  }
  for (const auto& [key, value] : description.facts.items()) {
    text += fmt::format("  {:<{}}  ", printable(label_of(key)), width) +
            wrap_text(value_text(value), width + 4) + "\n";
  }
  for (const std::string& note : description.notes) text += wrap_text(printable(note)) + "\n";
  return text;
}

Json description_json(const std::string& path, const FileDescription& description) {
  Json json = {{"path", path}, {"what", description.what}};
  json.update(description.facts);
  json["notes"] = description.notes;
  return json;
}

}  // namespace c2r::cli
