// What functions with many keyword arguments are given: a dict, of which None means the default.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <string>

#include "c2r/placement/cluster.h"

namespace c2r::python {

namespace nb = nanobind;

/// A cluster of `2x4`, the path of a JSON file, or the JSON itself.
/// @throws Error as read_cluster() and cluster_from_json()
Cluster cluster_of(const std::string& text);

/// @returns `num_threads`, or that of all processors for 0
/// @throws Error(kInvalidArgument) if it is negative
int threads_of(int num_threads);

/// Checks a layer's position.
/// @param owner what has the layers, for the message: "the statistics"
/// @throws Error(kInvalidArgument) unless it is in [0, num_layers)
void check_layer(std::int64_t layer, std::int64_t num_layers, const std::string& owner);

/// Sets `field` to the option of that name, unless it is missing or None.
/// @throws nb::type_error, naming the option, if it has another type
template <class T>
void take(const nb::dict& options, const char* name, T& field) {
  if (!options.contains(name) || options[name].is_none()) return;
  if (nb::try_cast<T>(options[name], field)) return;
  const nb::str text = nb::repr(options[name]);
  throw nb::type_error(
      (std::string(name) + " has another type than is documented: " + text.c_str()).c_str());
}

template <class T>
void take(const nb::dict& options, const char* name, std::optional<T>& field) {
  if (!options.contains(name) || options[name].is_none()) return;
  take(options, name, field.emplace());
}

/// The same of an enumeration that `parse` makes of its name.
template <class Enum, class Parse>
void take_name(const nb::dict& options, const char* name, Parse parse, Enum& field) {
  std::optional<std::string> text;
  take(options, name, text);
  if (text) field = parse(*text);
}

}  // namespace c2r::python
