// Parses JSON with nlohmann's parser and a builder of our own, and checks the types of values.
#include "c2r/io/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"
#include "c2r/io/memory.h"

namespace c2r {
namespace {

constexpr std::size_t kMaxDepth = 100;  // our files need 5; the parser's own limit is the stack
// A value takes 16 bytes, an array or object some 50 more, of 3 bytes of text, and a string or key
// some 130. The largest plans and dumps have some millions of values, tokenizers a million strings.
constexpr std::int64_t kMaxValues = std::int64_t{1} << 25, kMaxContainers = std::int64_t{1} << 22,
                       kMaxStrings = std::int64_t{1} << 22;
constexpr std::int64_t kCountsBetweenChecks = 1 << 17;  // of the memory that is free
// What the memory has to have free at a check, for each that was counted: when an array of N values
// is full, it moves to memory for 2 N (of 16 bytes, in objects with their keys of 48), and those
// that are read until the next check take what is said above.
constexpr std::int64_t kBytesOfValue = 48, kBytesOfContainer = 104, kBytesOfString = 232;

// Builds the value that the parser reads. nlohmann's own builder searches an object's keys for
// each new one, which takes minutes for the header of a model with 100,000 tensors.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(std::string_view place) : place_(place) {}

  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override {
    count(num_strings_, kMaxStrings, kBytesOfString, "strings and keys");
    return put(std::move(value));
  }
  bool binary(binary_t&) override { return false; }  // text has none

  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return open(Json::object());
  }
  bool key(string_t& name) override {
    count(num_strings_, kMaxStrings, kBytesOfString, "strings and keys");
    C2R_REQUIRE(keys_.back().insert(name).second, kInvalidFile, "{}: JSON has the key '{}' twice",
                place_, shown(name));
    auto& object = open_.back()->get_ref<Json::object_t&>();
    static_cast<Json::object_t::Container&>(object).emplace_back(std::move(name), nullptr);
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    open_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override {
    open_.pop_back();
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const Json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    const std::string_view what = error.what();
    const auto detail = what.find("] ");
    C2R_THROW(kInvalidFile, "{}: not valid JSON: {}", place_,
              shown(detail == std::string_view::npos ? what : what.substr(detail + 2), 200));
  }

 private:
  // Where the next value goes. A container does not grow while one of its elements is open, so
  // the addresses in open_ stay valid.
  Json& store(Json&& value) {
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return array.back();
    }
    return open_.back()->get_ref<Json::object_t&>().back().second = std::move(value);
  }
  // @param bytes for each, see kBytesOfValue
  void count(std::int64_t& number, std::int64_t most, std::int64_t bytes, std::string_view what) {
    C2R_REQUIRE(++number <= most, kInvalidFile, "{}: JSON has more than {} {}", place_, most, what);
    C2R_REQUIRE(number % kCountsBetweenChecks != 0 ||
                    available_bytes().value_or(INT64_MAX) >= bytes * number,
                kInvalidFile,
                "{}: JSON has more than {} {}, for which the memory that is free does not suffice",
                place_, number, what);
  }
  bool put(Json value) {
    count(num_values_, kMaxValues, kBytesOfValue, "values");
    store(std::move(value));
    return true;
  }
  bool open(Json container) {
    C2R_REQUIRE(open_.size() < kMaxDepth, kInvalidFile, "{}: JSON is nested deeper than {}", place_,
                kMaxDepth);
    count(num_containers_, kMaxContainers, kBytesOfContainer, "arrays and objects");
    open_.push_back(&store(std::move(container)));
    return true;
  }

  std::string_view place_;
  std::int64_t num_values_ = 0, num_containers_ = 0, num_strings_ = 0;
  Json root_;
  std::vector<Json*> open_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the open objects
};

// Escapes the control characters U+0080 to U+009F, which are two bytes each, in valid UTF-8: some
// terminals obey them, as they obey the escape character.
std::string with_escaped_c1(std::string text) {
  constexpr char kFirstByte = '\xc2';
  std::string escaped;
  std::size_t end = 0;  // of what is in `escaped`
  for (std::size_t at = text.find(kFirstByte); at != text.npos;
       at = text.find(kFirstByte, at + 2)) {
    const auto second = static_cast<unsigned char>(text[at + 1]);
    if (second >= 0xa0) continue;
    escaped += text.substr(end, at - end) + fmt::format("\\u{:04x}", second);
    end = at + 2;
  }
  return end == 0 ? text : escaped + text.substr(end);
}

}  // namespace

std::string shown_value(const Json& value) {
  return shown(value.dump(-1, ' ', true, Json::error_handler_t::replace));
}

Json parse_json(std::string_view text, std::string_view place) {
  Builder builder(place);
  (void)Json::sax_parse(text, &builder);  // errors are thrown by the builder
  return builder.take();
}

Json read_json_file(const std::filesystem::path& path) {
  return parse_json(read_text_file(path), path.string());
}

std::string json_text(const Json& value, int indent) {
  return with_escaped_c1(value.dump(indent, ' ', false, Json::error_handler_t::replace));
}

const Json& json_at(const Json& object, std::string_view key, std::string_view place) {
  C2R_REQUIRE(object.is_object(), kInvalidFile, "{}: expected a JSON object with the key '{}'",
              place, key);
  const auto found = object.find(std::string(key));
  C2R_REQUIRE(found != object.end(), kInvalidFile, "{}: the key '{}' is missing", place, key);
  return *found;
}

const Json* json_find(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool json_boolean(const Json& value, std::string_view what, std::string_view place) {
  C2R_REQUIRE(value.is_boolean(), kInvalidFile, "{}: {} is {}, but must be true or false", place,
              what, shown_value(value));
  return value.get<bool>();
}

std::int64_t json_integer(const Json& value, std::int64_t min, std::int64_t max,
                          std::string_view what, std::string_view place) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  C2R_REQUIRE(fits && min <= value.get<std::int64_t>() && value.get<std::int64_t>() <= max,
              kInvalidFile, "{}: {} is {}, but must be an integer in [{}, {}]", place, what,
              shown_value(value), min, max);
  return value.get<std::int64_t>();
}

double json_number(const Json& value, double min, std::string_view what, std::string_view place) {
  C2R_REQUIRE(value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() >= min,
              kInvalidFile, "{}: {} is {}, but must be a number of at least {}", place, what,
              shown_value(value), min);
  return value.get<double>();
}

void json_check_keys(const Json& object, std::initializer_list<std::string_view> known,
                     std::string_view what, std::string_view place) {
  C2R_REQUIRE(object.is_object(), kInvalidFile, "{}: {} is {}, but must be an object", place, what,
              shown_value(object));
  for (const auto& item : object.items()) {
    C2R_REQUIRE(std::ranges::find(known, item.key()) != known.end(), kInvalidFile,
                "{}: {} has the unknown key {}; the known ones are {}", place, what,
                shown_value(Json(item.key())), fmt::join(known, ", "));
  }
}

const Json::array_t& json_array(const Json& value, std::string_view what, std::string_view place) {
  C2R_REQUIRE(value.is_array(), kInvalidFile, "{}: {} is {}, but must be an array", place, what,
              shown_value(value));
  return value.get_ref<const Json::array_t&>();
}

const std::string& json_string(const Json& value, std::string_view what, std::string_view place) {
  C2R_REQUIRE(value.is_string(), kInvalidFile, "{}: {} is {}, but must be a string", place, what,
              shown_value(value));
  return value.get_ref<const std::string&>();
}

}  // namespace c2r
