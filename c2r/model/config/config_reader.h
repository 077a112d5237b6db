// Reads the keys of a config.json and records which keys were read.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "c2r/io/json.h"
#include "c2r/model/family.h"

namespace c2r {

inline constexpr std::int64_t kMaxWidth = 1 << 20;  // of hidden states and of MLPs

/// The keys of config.json without influence on the results of any family, sorted.
std::span<const std::string_view> ignored_config_keys();

class ConfigReader {
 public:
  /// @param json,place must outlive this object
  /// @throws Error(kInvalidFile) if `json` is not an object
  ConfigReader(const Json& json, std::string_view place);

  std::string_view place() const { return place_; }

  /// Records the key as read.
  /// @returns the value of a key; nullptr if it is absent or null
  const Json* find(std::string_view key);

  /// The functions below read one key. Those with `_or` return `value` if the key is absent or
  /// null.
  /// @throws Error(kInvalidFile) if the key is absent or the value is not in the range
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::int64_t integer_or(std::string_view key, std::int64_t min, std::int64_t max,
                          std::int64_t value);
  double number(std::string_view key, double min);
  bool boolean(std::string_view key);
  bool boolean_or(std::string_view key, bool value);

  /// Checks that each of these keys is absent or null or has the one value that is supported.
  /// @throws Error(kUnsupported), naming key and value
  void require(std::span<const RequiredValue> required);

  /// Checks that every key was read, is in `ignored` or in the list of keys without influence, or
  /// is null or false.
  /// @throws Error(kUnsupported), naming all other keys
  void finish(std::span<const std::string_view> ignored);

 private:
  const Json& json_;
  std::string_view place_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace c2r
