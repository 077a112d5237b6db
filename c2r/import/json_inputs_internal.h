// The JSON values that the inputs of an import hold: one for each response, request or dump.
#pragma once

#include <functional>
#include <string>

#include "c2r/import/import.h"
#include "c2r/io/json.h"

namespace c2r {

/// Calls `read` for each value in the inputs, in order, and tells the request's progress how many
/// inputs are done. An input is a file with one value, with a JSON list of values, or with a value
/// on each line.
/// @param is_list says whether a JSON array is a list of values and not a value itself; not called
///                for an empty array, which is taken for a value
/// @param read gets the place of the value, for messages: "FILE", "FILE:LINE" or "FILE, value 3"
/// @throws Error(kInvalidFile) if something is no JSON
/// Cost: one file is in memory at a time, and of one with a value on each line one value besides.
void for_each_json(const ImportRequest& request,
                   const std::function<bool(const Json& array)>& is_list,
                   const std::function<void(const Json& json, const std::string& place)>& read);

/// @returns whether the first value in the array that is not null is an object: a list of responses
///          may have null for requests that failed
bool is_list_of_objects(const Json& array);

}  // namespace c2r
