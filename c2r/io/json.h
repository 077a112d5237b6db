// JSON from files that may be broken or hostile. The values are nlohmann's; only parsing is ours.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace c2r {

/// Keeps the order of keys as written, so that files we write are stable and readable.
using Json = nlohmann::ordered_json;

/// Parses one JSON value that fills all of `text`. Duplicate keys, which the standard leaves open
/// and most parsers resolve silently, are an error, and so is nesting deeper than 100.
/// @param place what the text is, for messages: a file's path, or path and line
/// @throws Error(kInvalidFile): "PLACE: not valid JSON: WHAT"
Json parse_json(std::string_view text, std::string_view place);

/// The value that fills the file. @throws Error(kInvalidFile) if it cannot be read or is not JSON
Json read_json_file(const std::filesystem::path& path);

/// `value` as text, on one line unless each level is to be indented by `indent` spaces. What is not
/// UTF-8, as a file's name may be, becomes U+FFFD.
std::string json_text(const Json& value, int indent = -1);

/// `value` made fit for a message: long or binary values must not fill the user's terminal.
std::string shown_value(const Json& value);

/// `object[key]`. @throws Error(kInvalidFile), naming the key, if it is absent or not an object
const Json& json_at(const Json& object, std::string_view key, std::string_view place);

/// `object[key]`, or nullptr if it is absent or null or `object` is none.
const Json* json_find(const Json& object, std::string_view key);

/// `value` as true or false. @throws Error(kInvalidFile)
bool json_boolean(const Json& value, std::string_view what, std::string_view place);

/// `value` as an integer in [min, max]. `what` names it in the message.
/// @throws Error(kInvalidFile) if it is anything else; 3.0 and "3" are not integers
std::int64_t json_integer(const Json& value, std::int64_t min, std::int64_t max,
                          std::string_view what, std::string_view place);

/// `value` as a finite number of at least `min`. @throws Error(kInvalidFile)
double json_number(const Json& value, double min, std::string_view what, std::string_view place);

/// Checks that `object` is one and has no key but `known`: a key that we do not read may mean
/// something, so it is never skipped. @throws Error(kInvalidFile), naming the key and the known
/// ones
void json_check_keys(const Json& object, std::initializer_list<std::string_view> known,
                     std::string_view what, std::string_view place);

/// `value` as an array. @throws Error(kInvalidFile)
const Json::array_t& json_array(const Json& value, std::string_view what, std::string_view place);

/// `value` as a string. @throws Error(kInvalidFile)
const std::string& json_string(const Json& value, std::string_view what, std::string_view place);

}  // namespace c2r
