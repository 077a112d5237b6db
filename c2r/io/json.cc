#include "c2r/io/json.h"

#include <set>
#include <string>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

constexpr int kMaxDepth = 100;  // our files need 5; the parser's own limit is the stack

// Long or binary values must not fill the user's terminal.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view place) {
  std::vector<std::set<std::string>> open_objects;
  const auto check = [&](int depth, Json::parse_event_t event, const Json& parsed) {
    C2R_REQUIRE(depth <= kMaxDepth, kInvalidFile, "{}: JSON is nested deeper than {}", place,
                kMaxDepth);
    if (event == Json::parse_event_t::object_start) {
      open_objects.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open_objects.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      C2R_REQUIRE(open_objects.back().insert(key).second, kInvalidFile,
                  "{}: JSON has the key {} twice", place, shown(parsed));
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    const std::string_view what = e.what();
    const auto detail = what.find("] ");
    C2R_THROW(kInvalidFile, "{}: not valid JSON: {}", place,
              detail == std::string_view::npos ? what : what.substr(detail + 2));
  }
}

Json read_json_file(const std::filesystem::path& path) {
  return parse_json(read_text_file(path), path.string());
}

const Json& json_at(const Json& object, std::string_view key, std::string_view place) {
  C2R_REQUIRE(object.is_object(), kInvalidFile, "{}: expected a JSON object with the key '{}'",
              place, key);
  const auto found = object.find(std::string(key));
  C2R_REQUIRE(found != object.end(), kInvalidFile, "{}: the key '{}' is missing", place, key);
  return *found;
}

std::int64_t json_integer(const Json& value, std::int64_t min, std::int64_t max,
                          std::string_view what, std::string_view place) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  C2R_REQUIRE(fits && min <= value.get<std::int64_t>() && value.get<std::int64_t>() <= max,
              kInvalidFile, "{}: {} is {}, but must be an integer in [{}, {}]", place, what,
              shown(value), min, max);
  return value.get<std::int64_t>();
}

const Json::array_t& json_array(const Json& value, std::string_view what, std::string_view place) {
  C2R_REQUIRE(value.is_array(), kInvalidFile, "{}: {} is {}, but must be an array", place, what,
              shown(value));
  return value.get_ref<const Json::array_t&>();
}

const std::string& json_string(const Json& value, std::string_view what, std::string_view place) {
  C2R_REQUIRE(value.is_string(), kInvalidFile, "{}: {} is {}, but must be a string", place, what,
              shown(value));
  return value.get_ref<const std::string&>();
}

}  // namespace c2r
