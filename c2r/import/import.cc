// The table of formats, the checks of a request against its format, and the three kinds of import.
#include "c2r/import/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/recognize.h"
#include "c2r/import/torch/sglang_map_internal.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/io/file.h"
#include "c2r/placement/baselines/repair.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using enum ImportField;

constexpr EnumName<Phase> kPhases[] = {{Phase::kPrefill, "prefill"}, {Phase::kDecode, "decode"}};

struct FieldRow {
  ImportField field;
  std::string_view option;  // of `c2r import`
  bool (*is_given)(const ImportRequest& request);
  std::string_view refusal;  // where the format, {}, does not use it
};

constexpr FieldRow kFields[] = {
    {kNumExperts, "--num-experts", [](const ImportRequest& r) { return r.num_experts != 0; }, ""},
    {kTopK, "--top-k", [](const ImportRequest& r) { return r.top_k.has_value(); }, ""},
    {kLayerIndices, "--layers", [](const ImportRequest& r) { return !r.layer_indices.empty(); },
     ""},
    {kNumHiddenLayers, "--num-hidden-layers",
     [](const ImportRequest& r) { return r.num_hidden_layers.has_value(); },
     "num_hidden_layers (c2r import --num-hidden-layers) is for the formats sglang and vllm"},
    {kWeights, "--weights", [](const ImportRequest& r) { return !r.weights.empty(); },
     "weights and sequences are for the npy format only"},
    {kSequences, "--sequences", [](const ImportRequest& r) { return !r.sequences.empty(); },
     "weights and sequences are for the npy format only"},
    {kAxes, "--axes", [](const ImportRequest& r) { return !r.axes.empty(); },
     "--axes is for the npy format only"},
    {kCluster, "--cluster", [](const ImportRequest& r) { return r.cluster.has_value(); },
     "--cluster is for placements; format {} has none"},
    {kPlacement, "--placement", [](const ImportRequest& r) { return !r.placement.empty(); },
     "placement (c2r import --placement) is for the tensorrt-llm-loads format only"},
    {kSkipCached, "--skip-cached", [](const ImportRequest& r) { return r.skip_cached; },
     "--skip-cached is for the formats sglang and vllm; files of {} do not say what was cached"},
    {kPhase, "--phase", [](const ImportRequest& r) { return r.phase.has_value(); },
     "--phase is not for format {}, whose files do not tell the phases apart"},
    {kDropIncomplete, "--drop-incomplete", [](const ImportRequest& r) { return r.drop_incomplete; },
     "--drop-incomplete is for the megatron format only"},
    {kRepair, "--repair", [](const ImportRequest& r) { return r.repair; },
     "--repair is for placements; format {} has none"},
};

std::vector<ImportFormat> all_formats() {
  std::vector<ImportFormat> formats = {import_rows::npy(),
                                       import_rows::megatron(),
                                       import_rows::orders_in_chaos(),
                                       import_rows::moe_beyond(),
                                       import_rows::table(),
                                       import_rows::vllm(),
                                       import_rows::sglang(),
                                       import_rows::sglang_recorder(),
                                       import_rows::flame_moe(),
                                       import_rows::sglang_loads(),
                                       import_rows::vllm_loads(),
                                       import_rows::tensorrt_llm_loads(),
                                       import_rows::table_loads(),
                                       import_rows::coactivation()};
  for (const EngineRow& engine : engines()) {
    for (const PlacementFile& file : engine.files) {
      formats.push_back({.name = fmt::format("{}-placement", file.name),
                         .summary = std::string(file.suffix),
                         .makes = ImportKind::kPlan,
                         .needs = {kNumExperts, kTopK, kLayerIndices, kCluster},
                         .uses = {kRepair},
                         .takes_many_inputs = false,
                         .placement_file = &file});
    }
  }
  return formats;
}

// "--a", "--a and --b", "--a, --b and --c"
std::string options_text(const std::vector<ImportField>& fields) {
  std::vector<std::string_view> options;
  for (const FieldRow& row : kFields) {
    if (std::ranges::find(fields, row.field) != fields.end()) options.push_back(row.option);
  }
  const std::string_view last = options.back();
  options.pop_back();
  if (options.empty()) return std::string(last);
  return fmt::format("{} and {}", fmt::join(options, ", "), last);
}

void check_fields(const ImportFormat& format, const ImportRequest& request) {
  bool is_complete = format.takes_many_inputs || request.inputs.size() == 1;
  for (const FieldRow& row : kFields) {
    const bool is_needed = std::ranges::find(format.needs, row.field) != format.needs.end();
    const bool is_used =
        is_needed || std::ranges::find(format.uses, row.field) != format.uses.end();
    if (!row.is_given(request)) is_complete = is_complete && !is_needed;
    C2R_REQUIRE(is_used || !row.is_given(request), kInvalidArgument, fmt::runtime(row.refusal),
                format.name);
  }
  if (is_complete) return;
  const std::string needs = format.needs.empty() ? "" : "needs " + options_text(format.needs);
  const std::string one = format.takes_many_inputs ? "" : "takes one input";
  C2R_THROW(kInvalidArgument, "format {} {}{}{}", format.name, one,
            one.empty() || needs.empty() ? "" : ", and ", needs);
}

// @returns the request's format, after all checks that need no input
const ImportFormat& checked_format(ImportRequest& request) {
  recognize_format(request);
  const ImportFormat* const format = find_import_format(request.format);
  C2R_REQUIRE(format != nullptr, kInvalidArgument, "unknown format '{}'", shown(request.format));
  C2R_REQUIRE(!request.inputs.empty(), kInvalidArgument, "there is no file to import");
  check_fields(*format, request);
  C2R_REQUIRE(0 <= request.num_experts && request.num_experts <= kMaxExperts, kInvalidArgument,
              "num_experts is {}, but must be in [1, {}]", request.num_experts, kMaxExperts);
  std::string axes = request.axes;
  std::ranges::sort(axes);
  C2R_REQUIRE(axes.empty() || axes == "KLT", kInvalidArgument,
              "axes (c2r import --axes) are T, L and K in the order of the array; not '{}'",
              shown(request.axes));
  const auto& layers = request.layer_indices;
  C2R_REQUIRE(std::ranges::adjacent_find(layers, std::greater_equal{}) == layers.end() &&
                  (layers.empty() || layers[0] >= 0),
              kInvalidArgument, "layer_indices (c2r import --layers) must ascend from 0 or more");
  return *format;
}

// The files of a folder that the format reads, in the order of their names.
std::vector<std::filesystem::path> files_of_folder(const ImportFormat& format,
                                                   const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string ending = without_compression(entry->path()).extension();
    if (std::ranges::find(format.endings, ending) != format.endings.end()) {
      files.push_back(entry->path());
    }
  }
  C2R_REQUIRE(!error, kInvalidFile, "cannot read the folder '{}': {}", folder.string(),
              error.message());
  C2R_REQUIRE(!files.empty(), kInvalidFile, "{}: has no file whose name ends in {}",
              folder.string(), fmt::join(format.endings, " or "));
  std::ranges::sort(files);
  return files;
}

// Leaves out a file that was found before: by another name, through a link, in its folder, or as
// what was compressed. It would be counted twice.
std::vector<std::filesystem::path> each_file_once(const ImportRequest& request,
                                                  const std::vector<std::filesystem::path>& files) {
  std::map<FileIdentity, std::filesystem::path> paths;  // where each is found first
  for (const auto& file : files) {
    if (const auto identity = file_identity(file)) paths.emplace(*identity, file);
  }
  // Null for what is none of the files, and for what cannot be looked up, which is said when it is
  // opened.
  const auto first_path = [&](const std::filesystem::path& path) -> const std::filesystem::path* {
    const auto identity = file_identity(path);
    if (!identity) return nullptr;
    const auto found = paths.find(*identity);
    return found == paths.end() ? nullptr : &found->second;
  };
  std::set<const std::filesystem::path*> seen;
  std::vector<std::filesystem::path> once;
  for (const auto& file : files) {
    const auto* const first = first_path(file);
    const auto plain = without_compression(file);
    const auto* const decompressed = plain == file ? nullptr : first_path(plain);
    if (first != nullptr && !seen.insert(first).second) {
      add_note(request, fmt::format("left out: {}, which is the same file as {}", file.string(),
                                    first->string()));
    } else if (decompressed != nullptr) {
      add_note(request, fmt::format("left out: {}, for {} is there as well", file.string(),
                                    decompressed->string()));
    } else {
      once.push_back(file);
    }
  }
  return once;
}

// The request with the files of each folder in its place, if the format reads files.
ImportRequest with_files_of_folders(const ImportFormat& format, ImportRequest request) {
  if (format.endings.empty()) {
    request.inputs = each_file_once(request, request.inputs);
    return request;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& input : request.inputs) {
    std::error_code ignored;  // what cannot be looked up is said when it is opened
    if (std::filesystem::is_directory(input, ignored)) {
      const auto found = files_of_folder(format, input);
      files.insert(files.end(), found.begin(), found.end());
    } else {
      files.push_back(input);
    }
  }
  request.inputs = each_file_once(request, files);
  return request;
}

CollaborationStatistics statistics_of(const ImportFormat& format, const ImportRequest& request) {
  CollaborationStatistics statistics = format.statistics(with_files_of_folders(format, request));
  const std::int32_t given = request.num_experts, found = statistics.header.num_experts;
  C2R_REQUIRE(given == 0 || given == found, kInvalidFile,
              "{}: holds counts of {} experts, but --num-experts is {}", request.inputs[0].string(),
              found, given);
  return statistics;
}

// The bytes of a placement file. SGLang's may be a file of torch.save(); then the same as JSON.
std::string placement_text(const ImportFormat& format, const ImportRequest& request) {
  const auto& path = request.inputs[0];
  if (!torch::is_zip(path)) return read_text_file(path);
  C2R_REQUIRE(format.placement_file->name == "sglang", kInvalidFile,
              "{}: is a zip archive, such as torch.save() writes, but {} are {}", path.string(),
              format.name, format.summary);
  return torch::sglang_map_text(path);
}

// Gives the wasted slots of the plan other experts, as if all experts had the same load: a file of
// a placement has no loads.
void repair_plan(const ImportRequest& request, Plan& plan) {
  const std::vector<double> loads(static_cast<std::size_t>(plan.num_experts), 1);
  std::int64_t num_slots = 0, num_layers = 0;
  for (PlanLayer& layer : plan.layers) {
    if (layer.wasted_slots.empty()) continue;
    const Matrix<ExpertId> slots = with_wasted_slots(layer.placement, layer.wasted_slots);
    auto [placement, num_repaired] = repair_repeats(slots, loads, plan.cluster);
    layer.placement = std::move(placement);
    layer.wasted_slots.clear();
    num_slots += num_repaired;
    ++num_layers;
  }
  if (num_slots == 0) return;
  add_note(request, fmt::format("repaired: {} slots in {} of {} layers, whose rank held the expert "
                                "in another slot, too",
                                num_slots, num_layers, plan.num_layers()));
}

Plan plan_of_file(const ImportFormat& format, const ImportRequest& request) {
  const TraceHeader header{.model = request.model,
                           .num_experts = request.num_experts,
                           .top_k = *request.top_k,
                           .layer_indices = request.layer_indices};
  const std::string input = request.inputs[0].string();
  Plan plan{.model = header.model,
            .num_experts = header.num_experts,
            .top_k = header.top_k,
            .cluster = *request.cluster,
            .layers = read_placements(*format.placement_file, placement_text(format, request),
                                      {.num_experts = header.num_experts,
                                       .ep_size = request.cluster->ep_size(),
                                       .layer_indices = header.layer_indices},
                                      input, request.notes),
            .provenance = {.c2r_version = request.c2r_version,
                           .method = format.name,
                           .inputs = {{"placement", input}}}};
  if (request.repair) repair_plan(request, plan);
  if (const auto wasted = wasted_slots_text(plan)) {
    add_note(request, fmt::format("{}; c2r counts them as empty, and exports them as they were "
                                  "found; --repair gives them other experts",
                                  *wasted));
  }
  return plan;
}

ImportResult write_imported_statistics(const ImportFormat& format, const ImportRequest& request) {
  const CollaborationStatistics statistics = statistics_of(format, request);
  write_statistics(statistics, request.output);
  return {.makes = ImportKind::kStatistics,
          .header = statistics.header,
          .num_tokens = *std::ranges::max_element(statistics.num_tokens),
          .has_pairs = statistics.has_pairs};
}

ImportResult write_imported_plan(const ImportFormat& format, const ImportRequest& request) {
  const Plan plan = plan_of_file(format, request);
  write_plan(plan, request.output);
  ImportResult result{.makes = ImportKind::kPlan,
                      .header = {.model = plan.model,
                                 .num_experts = plan.num_experts,
                                 .top_k = plan.top_k,
                                 .layer_indices = request.layer_indices}};
  const auto slots = [](const PlanLayer& layer) { return layer.placement.slots_per_rank(); };
  result.min_slots_per_rank = slots(*std::ranges::min_element(plan.layers, {}, slots));
  result.max_slots_per_rank = slots(*std::ranges::max_element(plan.layers, {}, slots));
  return result;
}

}  // namespace

void for_each_input(const ImportRequest& request,
                    const std::function<void(const std::filesystem::path&)>& read) {
  std::int64_t num_done = 0;
  for (const auto& path : request.inputs) {
    read(path);
    if (request.progress == nullptr) continue;
    request.progress->update(++num_done, std::ssize(request.inputs));
  }
}

Phase parse_phase(std::string_view name) {
  return parse_in(kPhases, "a phase is", name);
}

std::span<const ImportFormat> import_formats() {
  static const std::vector<ImportFormat> formats = all_formats();
  return formats;
}

const ImportFormat* find_import_format(std::string_view name) {
  const auto formats = import_formats();
  const auto found = std::ranges::find(formats, name, &ImportFormat::name);
  return found == formats.end() ? nullptr : &*found;
}

void recognize_format(ImportRequest& request) {
  if (!request.format.empty()) return;
  C2R_REQUIRE(!request.inputs.empty(), kInvalidArgument, "there is no file to import");
  const auto& path = request.inputs[0];
  const RecognizedInput input = recognize_input(path);
  C2R_REQUIRE(!input.format.empty(), kInvalidArgument,
              "{} looks like {}; `c2r help import` lists the formats that {} can name",
              path.string(), input.what, request.format_option);
  request.format = input.format;
  if (request.notes == nullptr) return;
  request.notes->push_back(
      fmt::format("read as {} {}: {}", request.format_option, input.format, input.what));
}

ImportResult import_file(ImportRequest request) {
  const ImportFormat& format = checked_format(request);
  if (format.makes == ImportKind::kStatistics) return write_imported_statistics(format, request);
  if (format.makes == ImportKind::kPlan) return write_imported_plan(format, request);
  return format.write_trace(with_files_of_folders(format, request));
}

CollaborationStatistics import_statistics(ImportRequest request) {
  const ImportFormat& format = checked_format(request);
  C2R_REQUIRE(format.makes == ImportKind::kStatistics, kInvalidArgument,
              "format {} does not make statistics", format.name);
  return statistics_of(format, request);
}

Plan import_plan(ImportRequest request) {
  const ImportFormat& format = checked_format(request);
  C2R_REQUIRE(format.makes == ImportKind::kPlan, kInvalidArgument, "format {} does not make a plan",
              format.name);
  return plan_of_file(format, request);
}

}  // namespace c2r
