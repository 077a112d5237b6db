// Reads the keys of a config.json and keeps account of those that were not read.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/model/family.h"

namespace c2r {

class ConfigReader {
 public:
  /// Both must outlive this object. @throws Error(kInvalidFile) if `json` is not an object
  ConfigReader(const Json& json, std::string_view place);

  std::string_view place() const { return place_; }

  /// The value of a key; null if it is absent or null. Counts as read.
  const Json* find(std::string_view key);

  /// @throws Error(kInvalidFile) if the key is absent or the value is not in the range
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::int64_t integer_or(std::string_view key, std::int64_t min, std::int64_t max,
                          std::int64_t value);
  double number(std::string_view key, double min);
  bool boolean(std::string_view key);
  bool boolean_or(std::string_view key, bool value);

  /// Checks that each key, where it is there and not null, has the one value that we can run.
  /// @throws Error(kUnsupported), naming key and value
  void require(std::span<const RequiredValue> required);

  /// Checks that every key was read or is ignored, or is null or false.
  /// @throws Error(kUnsupported), naming the key
  void finish(std::span<const std::string_view> ignored);

 private:
  const Json& json_;
  std::string_view place_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace c2r
