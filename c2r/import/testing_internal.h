// What the tests of imports share.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "c2r/core/testing.h"
#include "c2r/import/import.h"

namespace c2r::testing {

inline ImportRequest request_for(std::vector<std::filesystem::path> inputs) {
  return {.inputs = std::move(inputs),
          .output = temporary_path("out.safetensors"),
          .model = "test",
          .num_experts = 8};
}

/// A .npy file of version 1.
inline std::filesystem::path npy_file(const std::string& name, std::string_view descr,
                                      std::string_view shape, std::string_view data) {
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n", descr, shape);
  return text_file(name, std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' +
                             header + std::string(data));
}

/// The ids of a layer, token after token: "0 7 3 -".
inline std::string ids_of(const Trace& trace, std::int64_t layer) {
  std::string text;
  const auto ids = trace.topk_idx(layer, 0, trace.num_tokens());
  for (const ExpertId id : ids.all()) {
    if (!text.empty()) text += ' ';
    text += id == kNoExpert ? "-" : std::to_string(index(id));
  }
  return text;
}

inline std::vector<std::int64_t> starts_of(const Trace& trace) {
  return {trace.sequence_starts().begin(), trace.sequence_starts().end()};
}

inline ImportResult import_as(std::string_view format, ImportRequest request) {
  request.format = format;
  return import_file(request);
}

/// What an import of one input says, without the input's path.
inline std::string error_of_import(std::string_view format, const ImportRequest& request) {
  std::filesystem::remove(request.output);  // of an import that succeeded before
  const auto message = error_of([&] { (void)import_as(format, request); });
  const auto path = request.inputs[0].string();
  EXPECT_FALSE(std::filesystem::exists(request.output)) << message;
  return message.starts_with(path) ? message.substr(path.size()) : message;
}

inline std::string error_of_text(std::string_view format, std::string_view text) {
  return error_of_import(format, request_for({text_file("input", text)}));
}

}  // namespace c2r::testing
