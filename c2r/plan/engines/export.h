// Writes the placement of a plan in the form that another engine loads (engine.h lists the forms).
//
// Each engine numbers layers in its own way, and most engines load a wrong file without an error.
// So each file is read back and compared with the plan before it is returned.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "c2r/plan/engines/engine.h"
#include "c2r/plan/plan.h"

namespace c2r {

struct Export {
  std::string bytes;                  // the file
  std::vector<std::string> warnings;  // for the user
};

/// Writes the plan's placement for `target`, in memory.
/// @returns the bytes of the file, and the warnings
/// @throws Error(kInvalidArgument) if the plan is not valid or has fewer hidden layers than it
///         names
/// @throws Error(kUnsupported) if the target cannot express the plan: replicas in a permutation,
///         layers with different numbers of slots unless PlacementFile::has_slots_by_layer, or
///         wasted slots unless PlacementFile::keeps_slot_order
Export export_plan(const ExportTarget& target, const Plan& plan, const ExportOptions& options);

/// Engines know the form of a file by the end of its name: SGLang takes a file of another name for
/// the map itself.
/// @param option what the caller calls the path, for the message
/// @throws Error(kInvalidArgument) if the path does not end in the target's suffix
void check_export_path(const ExportTarget& target, std::string_view path, std::string_view option);

/// @param path of the file that export_plan() made
/// @returns how the target's engine, on as many ranks as the plan has, is told to load it
/// @throws Error(kInvalidArgument) if the plan is not valid
std::string export_usage(const ExportTarget& target, const Plan& plan, std::string_view path);

/// Checks that `bytes` are a valid file for the target and have the placements of the plan.
/// @throws Error(kInvalidFile), naming the error, or the first layer and rank that differ
void validate_export(const ExportTarget& target, std::string_view bytes, const Plan& plan,
                     std::string_view place);

}  // namespace c2r
