// Builds JSON from the events of yaml-cpp's parser.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/io/memory.h"
#include "c2r/plan/engines/yaml_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr std::size_t kMaxYamlKeys = std::size_t{2} * kMaxLayers;  // compared with each other

class JsonBuilder final : public YAML::EventHandler {
 public:
  explicit JsonBuilder(std::string_view place) : place_(place) {}

  Json root;

  void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    if (needs_key()) {
      set_key("", mark);
    } else {
      add(nullptr);
    }
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    C2R_THROW(kInvalidFile, "{}: has an alias; write out what it stands for", line(mark));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t /*anchor*/,
                const std::string& value) override {
    if (needs_key()) return set_key(value, mark);
    const bool is_plain = tag == "?";
    const auto integer = is_plain ? parse_integer(value) : std::nullopt;
    add(integer ? Json(*integer) : Json(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& /*tag*/,
                       YAML::anchor_t /*anchor*/, YAML::EmitterStyle::value /*style*/) override {
    open(Json::array(), mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                  YAML::EmitterStyle::value /*style*/) override {
    open(Json::object(), mark);
  }
  void OnMapEnd() override { close(); }

 private:
  // A map or a sequence whose end has not been seen.
  struct Open {
    Json value;
    std::optional<std::string> key;  // of the value that comes next in a map
  };

  std::string line(const YAML::Mark& mark) const {
    return fmt::format("{}: line {}", place_, mark.line + 1);
  }

  bool needs_key() const {
    return !open_.empty() && open_.back().value.is_object() && !open_.back().key;
  }

  void set_key(const std::string& key, const YAML::Mark& mark) {
    const Json& object = open_.back().value;
    C2R_REQUIRE(object.size() < kMaxYamlKeys, kInvalidFile, "{}: there are more than {} keys",
                line(mark), kMaxYamlKeys);
    C2R_REQUIRE(!object.contains(key), kInvalidFile, "{}: the key '{}' is there twice", line(mark),
                shown(key));
    open_.back().key = key;
  }

  void open(Json value, const YAML::Mark& mark) {
    C2R_REQUIRE(!needs_key(), kInvalidFile, "{}: a key must be text or a number", line(mark));
    open_.push_back({std::move(value), std::nullopt});
  }

  void close() {
    Json value = std::move(open_.back().value);
    open_.pop_back();
    add(std::move(value));
  }

  void add(Json value) {
    if (open_.empty()) {
      root = std::move(value);
    } else if (open_.back().value.is_object()) {
      open_.back().value[*open_.back().key] = std::move(value);
      open_.back().key.reset();
    } else {
      open_.back().value.push_back(std::move(value));
    }
  }

  std::string_view place_;
  std::vector<Open> open_;
};

// Before it tells of the first value, yaml-cpp keeps the tokens of a whole line, up to 280 bytes
// for each of these characters.
void check_marks(std::string_view text, std::string_view place, std::int64_t max_marks) {
  constexpr std::string_view kMarks = "[{,:-\n";
  constexpr std::int64_t kBytesOfMark = 280;
  const std::int64_t num_marks =
      std::ranges::count_if(text, [&](char c) { return kMarks.find(c) != kMarks.npos; });
  C2R_REQUIRE(num_marks <= max_marks, kInvalidFile,
              "{}: yaml has more than {} brackets, commas, colons, dashes and lines", place,
              max_marks);
  C2R_REQUIRE(available_bytes().value_or(INT64_MAX) >= kBytesOfMark * num_marks, kInvalidFile,
              "{}: the memory that is free does not suffice for its {} brackets, commas, colons, "
              "dashes and lines",
              place, num_marks);
}

}  // namespace

Json parse_yaml(std::string_view text, std::string_view place, std::int64_t max_marks) {
  check_marks(text, place, max_marks);
  std::istringstream stream{std::string(text)};
  JsonBuilder builder(place);
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
  } catch (const YAML::Exception& e) {
    C2R_THROW(kInvalidFile, "{}: line {}: not valid yaml: {}", place, e.mark.line + 1,
              shown(e.msg));
  }
  return std::move(builder.root);
}

}  // namespace c2r
