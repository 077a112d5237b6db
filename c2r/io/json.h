// Strict parsing of JSON from files that may be broken or hostile, into the values of
// nlohmann/json.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace c2r {

/// Keeps the order in which keys were added, so that the files we write are stable and readable.
using Json = nlohmann::ordered_json;

/// Parses one JSON value that fills all of `text`. A key that occurs twice in an object is an
/// error, although the standard allows it, and so is nesting deeper than 100.
/// @param place what the text is, for messages: a file's path, or path and line
/// @throws Error(kInvalidFile): "PLACE: not valid JSON: WHAT"
Json parse_json(std::string_view text, std::string_view place);

/// @returns the one JSON value that fills the file
/// @throws Error(kInvalidFile) if the file cannot be read or is not JSON
Json read_json_file(const std::filesystem::path& path);

/// @param indent spaces for each level; -1: all on one line
/// @returns `value` as text. Invalid UTF-8, which a file name may contain, becomes U+FFFD; control
///          characters are escaped, so that they cannot control a terminal.
std::string json_text(const Json& value, int indent = -1);

/// @returns `value` for a message, shortened and escaped as by shown()
std::string shown_value(const Json& value);

/// @returns object[key]
/// @throws Error(kInvalidFile), naming the key, if it is absent or `object` is not an object
const Json& json_at(const Json& object, std::string_view key, std::string_view place);

/// @returns object[key], or nullptr if it is absent or null or `object` is not an object
const Json* json_find(const Json& object, std::string_view key);

/// @param what names the value in the message, here and below
/// @returns `value` as true or false
/// @throws Error(kInvalidFile) if it is anything else
bool json_boolean(const Json& value, std::string_view what, std::string_view place);

/// @returns `value` as an integer in [min, max]
/// @throws Error(kInvalidFile) if it is anything else; 3.0 and "3" are not integers
std::int64_t json_integer(const Json& value, std::int64_t min, std::int64_t max,
                          std::string_view what, std::string_view place);

/// @returns `value` as a finite number of at least `min`
/// @throws Error(kInvalidFile) if it is anything else
double json_number(const Json& value, double min, std::string_view what, std::string_view place);

/// Checks that `object` is an object with no keys but `known`. A key that we do not read may change
/// the meaning of the file, so it is never skipped.
/// @throws Error(kInvalidFile), naming the key and the known ones
void json_check_keys(const Json& object, std::initializer_list<std::string_view> known,
                     std::string_view what, std::string_view place);

/// @returns `value` as an array
/// @throws Error(kInvalidFile) if it is anything else
const Json::array_t& json_array(const Json& value, std::string_view what, std::string_view place);

/// @returns `value` as a string
/// @throws Error(kInvalidFile) if it is anything else
const std::string& json_string(const Json& value, std::string_view what, std::string_view place);

}  // namespace c2r
