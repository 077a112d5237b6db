// Finds the option or command that a word of a command line belongs to. completion.bash calls it.
#include "c2r/cli/completion.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>
#include <string_view>
#include <utility>

#include "c2r/cli/app.h"
#include "c2r/trace/sequence_split.h"

namespace c2r::cli {
namespace {

// The name of a validator of offered() and one_of() is this mark and the values, with commas.
constexpr std::string_view kOfferedMark = "values:";

std::string offered_name(const std::vector<std::string>& values) {
  return fmt::format("{}{}", kOfferedMark, fmt::join(values, ","));
}

std::vector<std::string> offered_values(CLI::Option& option) {
  for (int v = 0;; ++v) {
    try {
      const std::string& name = option.get_validator(v)->get_name();
      if (name.starts_with(kOfferedMark)) return parts_of({name.substr(kOfferedMark.size())});
    } catch (const CLI::OptionNotFound&) {  // there is no validator v
      return {};
    }
  }
}

// Where a command line that ends before the begun word stands.
struct Place {
  CLI::App* command;
  CLI::Option* option = nullptr;  // whose value is next; null for a word of the command
};

Place place_after(CLI::App& app, std::span<const char* const> words) {
  Place place{.command = &app};
  for (const std::string word : words) {
    if (word == "=") continue;  // bash makes a word of it
    if (word.starts_with("-")) {
      place.option = nullptr;
      for (CLI::Option* const option : place.command->get_options()) {
        const bool has_value = option->get_items_expected_max() > 0;
        if (has_value && option->check_name(word)) place.option = option;
      }
    } else if (place.option != nullptr) {
      place.option = nullptr;  // the word was its value
    } else {
      for (CLI::App* const command : place.command->get_subcommands({})) {
        // The words after "help" are those of the command that it explains.
        if (command->get_name() == word && word != "help") place.command = command;
      }
    }
  }
  return place;
}

std::vector<std::string> continuations(const Place& place, std::string_view begun) {
  if (place.option != nullptr) return offered_values(*place.option);
  std::vector<std::string> names;
  if (begun.starts_with("-")) {
    for (const CLI::Option* const option : place.command->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    return names;
  }
  for (CLI::App* const command : place.command->get_subcommands({})) {
    names.push_back(command->get_name());
  }
  for (CLI::Option* const option : place.command->get_options()) {
    if (!option->get_positional()) continue;
    for (std::string& value : offered_values(*option)) names.push_back(std::move(value));
  }
  return names;
}

}  // namespace

CLI::Validator offered(const std::vector<std::string>& values) {
  return {[](const std::string&) { return std::string(); }, "", offered_name(values)};
}

CLI::Validator offered_parts() {
  std::vector<std::string> names;
  names.reserve(kSequenceParts.size());
  for (const SequencePart part : kSequenceParts) names.emplace_back(name_of(part));
  return offered(names);
}

CLI::Validator one_of(const std::vector<std::string>& values) {
  return CLI::IsMember(values).description("").name(offered_name(values));
}

void print_completions(CLI::App& app, std::span<const char* const> words) {
  const Place place =
      place_after(app, words.first(words.size() - std::min<std::size_t>(words.size(), 1)));
  std::string begun = words.empty() ? "" : words.back();
  if (begun == "=") begun.clear();
  std::string done;  // values of a list that are complete
  if (place.option != nullptr) {
    done = begun.substr(0, begun.rfind(',') + 1);
    begun.erase(0, done.size());
  }
  for (const std::string& name : continuations(place, begun)) {
    if (name.starts_with(begun)) std::cout << done << name << "\n";
  }
}

}  // namespace c2r::cli
