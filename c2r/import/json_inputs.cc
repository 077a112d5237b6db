// Takes files of JSON apart into the values that they hold.
#include <algorithm>
#include <string_view>

#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

using ReadJson = std::function<void(const Json& json, const std::string& place)>;

constexpr std::string_view kBlanks = " \t\r\n";

// Whether the first line is a whole value and others follow.
bool is_json_lines(std::string_view text) {
  const std::size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
  const std::size_t end = std::min(text.find('\n', begin), text.size());
  if (text.find_first_not_of(kBlanks, end) == std::string_view::npos) return false;
  return Json::accept(text.substr(begin, end - begin));
}

void read_lines(std::string_view text, const std::string& path, const ReadJson& read) {
  for (std::size_t begin = 0, number = 1; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(kBlanks) == std::string_view::npos) continue;
    const std::string place = fmt::format("{}:{}", path, number);
    read(parse_json(line, place), place);
  }
}

}  // namespace

bool is_list_of_objects(const Json& array) {
  const auto& values = array.get_ref<const Json::array_t&>();
  const auto found =
      std::ranges::find_if(values, [](const Json& value) { return !value.is_null(); });
  return found == values.end() || found->is_object();
}

void for_each_json(const ImportRequest& request,
                   const std::function<bool(const Json& array)>& is_list, const ReadJson& read) {
  for_each_input(request, [&](const std::filesystem::path& path) {
    const std::string text = read_text_file(path);
    if (is_json_lines(text)) return read_lines(text, path.string(), read);
    const Json json = parse_json(text, path.string());
    if (!json.is_array() || json.empty() || !is_list(json)) return read(json, path.string());
    for (std::size_t i = 0; i < json.size(); ++i) {
      read(json[i], fmt::format("{}, value {}", path.string(), i));
    }
  });
}

}  // namespace c2r
