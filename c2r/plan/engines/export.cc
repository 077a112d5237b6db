// Writes the file of an engine, compares it with the plan, and collects the warnings.
#include "c2r/plan/engines/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

// @returns the warning for a backend that c2r does not know
std::string unknown_backend(const ExportTarget& target, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Backend& backend : target.engine.backends) names.push_back(backend.name);
  const std::string known =
      names.empty() ? "" : fmt::format("; it knows {}", fmt::join(names, ", "));
  return fmt::format(
      "c2r does not know how {} sends copies with backend '{}', and so whether placement saves "
      "any{}",
      target.engine.title, shown(name), known);
}

// @param use how the user runs the engine: "with backend deepep in --deepep-mode low_latency"
std::optional<std::string> kernel_warning(const ExchangeKernel& kernel, std::string_view use,
                                          std::string_view engine) {
  if (!kernel.verdict.empty()) return fmt::format("{}, {}: {}", engine, use, kernel.verdict);
  if (kernel.mode == CopyMode::kAllGather) {
    return fmt::format(
        "{} sends every token to every rank {}: placement changes the balance of load, but not a "
        "byte of traffic",
        engine, use);
  }
  if (kernel.mode != CopyMode::kPerExpert) return std::nullopt;
  return fmt::format(
      "{} sends one copy for every chosen expert {}: placement changes only which of them stay on "
      "their rank or node",
      engine, use);
}

std::vector<std::string> transport_warnings(const ExportTarget& target,
                                            const ExportOptions& options) {
  const Backend* const backend = find_backend(target.engine, options.backend);
  if (backend == nullptr && options.backend.empty()) return {};
  if (backend == nullptr) return {unknown_backend(target, options.backend)};
  const std::string name = fmt::format(
      "with {}backend {}", options.backend.empty() ? "the default " : "", backend->name);
  std::vector<std::string> warnings;
  for (const ExchangeKernel& kernel : backend->kernels) {
    const std::string use =
        kernel.setting.empty() ? name : fmt::format("{} {}", name, kernel.setting);
    auto warning = kernel_warning(kernel, use, target.engine.title);
    if (warning) warnings.push_back(std::move(*warning));
  }
  return warnings;
}

std::optional<std::string> constraint_warning(const ExportTarget& target, const Plan& plan) {
  if (!plan.top_t) return std::nullopt;
  return fmt::format(
      "the plan constrains routing to {} collaborators of an expert, which {} cannot be told: it "
      "routes without the constraint",
      *plan.top_t, target.engine.title);
}

std::optional<std::string> replica_warning(const ExportTarget& target, const Plan& plan) {
  const auto rule = target.engine.replica_rule;
  const bool replicates = std::ranges::any_of(plan.layers, has_replicas, &PlanLayer::placement);
  if (!rule || !replicates || plan.predictions.empty()) return std::nullopt;
  const ReplicaRule predicted = plan.predictions.back().replica_rule;
  if (predicted == *rule) return std::nullopt;
  return fmt::format(
      "the plan's predictions assume the replica rule {}, but {} chooses as {} does: see what that "
      "gives with c2r simulate --replica-rule {}",
      name_of(predicted), target.engine.title, name_of(*rule), name_of(*rule));
}

// @returns the warning for a file whose number of rows was guessed
std::optional<std::string> rows_warning(const ExportTarget& target, const Plan& plan,
                                        const ExportOptions& options) {
  if (!target.file.has_hidden_layer_rows || options.num_hidden_layers) return std::nullopt;
  const std::int32_t last = plan.layers.back().layer_index;
  return fmt::format(
      "the number of hidden layers was not given: {} rows were written, as if layer {} were the "
      "model's last",
      last + 1, last);
}

void check_slots_of_layers(const ExportTarget& target, const Plan& plan) {
  if (target.file.has_slots_by_layer) return;
  const auto num_slots = [](const PlanLayer& layer) {
    return std::ssize(layer.placement.slots.all());
  };
  const PlanLayer& first = plan.layers[0];
  const auto other = std::ranges::find_if(
      plan.layers, [&](const PlanLayer& layer) { return num_slots(layer) != num_slots(first); });
  if (other == plan.layers.end()) return;
  C2R_THROW(kUnsupported,
            "{} takes one number of slots for all layers, but layer {} has {} and layer {} has {}: "
            "give every layer the same redundant slots",
            target.file.name, first.layer_index, num_slots(first), other->layer_index,
            num_slots(*other));
}

std::vector<ExpertId> sorted(std::span<const ExpertId> experts) {
  std::vector<ExpertId> result(experts.begin(), experts.end());
  std::ranges::sort(result);
  return result;
}

void check_same(const PlanLayer& layer, const PlanLayer& written, bool keeps_slot_order,
                std::string_view place) {
  const Matrix<ExpertId> expected = with_wasted_slots(layer.placement, layer.wasted_slots);
  const Matrix<ExpertId> found = with_wasted_slots(written.placement, written.wasted_slots);
  C2R_REQUIRE(found.cols() == expected.cols(), kInvalidFile,
              "{}: layer {} has {} slots a rank, but {} in the plan", place, layer.layer_index,
              found.cols(), expected.cols());
  for (std::int64_t r = 0; r < expected.rows(); ++r) {
    const bool is_same = keeps_slot_order ? std::ranges::equal(found.row(r), expected.row(r))
                                          : sorted(found.row(r)) == sorted(expected.row(r));
    C2R_REQUIRE(is_same, kInvalidFile, "{}: layer {}: rank {} holds other experts than in the plan",
                place, layer.layer_index, r);
  }
}

}  // namespace

Export export_plan(const ExportTarget& target, const Plan& plan, const ExportOptions& options) {
  check_plan(plan);
  check_slots_of_layers(target, plan);
  const auto wasted = wasted_slots_text(plan);
  C2R_REQUIRE(!wasted || target.file.keeps_slot_order, kUnsupported,
              "{}, which {}'s file cannot say: import the placement with --repair, or plan by "
              "another method than balance",
              *wasted, target.file.name);
  Export result{.bytes = target.file.write(plan, options)};
  validate_export(target, result.bytes, plan, fmt::format("the {} file", target.file.name));
  for (const std::string_view caution : target.file.cautions) {
    result.warnings.emplace_back(caution);
  }
  if (auto warning = rows_warning(target, plan, options)) {
    result.warnings.push_back(std::move(*warning));
  }
  if (wasted) {
    result.warnings.push_back(fmt::format(
        "{}; they were written as the plan has them: c2r import --repair fills them", *wasted));
  }
  std::ranges::move(transport_warnings(target, options), std::back_inserter(result.warnings));
  for (auto warning : {constraint_warning(target, plan), replica_warning(target, plan)}) {
    if (warning) result.warnings.push_back(std::move(*warning));
  }
  return result;
}

void check_export_path(const ExportTarget& target, std::string_view path, std::string_view option) {
  C2R_REQUIRE(path.ends_with(target.file.suffix), kInvalidArgument,
              "{} '{}' must end in {}, by which {} knows the form of the file", option, path,
              target.file.suffix, target.file.name);
}

std::string export_usage(const ExportTarget& target, const Plan& plan, std::string_view path) {
  check_plan(plan);
  return target.file.usage(plan, path);
}

void validate_export(const ExportTarget& target, std::string_view bytes, const Plan& plan,
                     std::string_view place) {
  const std::vector<PlanLayer> found = read_placements(target.file, bytes, map_shape(plan), place);
  for (std::size_t l = 0; l < found.size(); ++l) {
    check_same(plan.layers[l], found[l], target.file.keeps_slot_order, place);
  }
}

}  // namespace c2r
