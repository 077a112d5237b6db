// Registers the commands, parses the command line, and maps errors to messages and exit statuses.
#include "c2r/cli/app.h"

#include <fmt/ranges.h>

#include <CLI/Config.hpp>
#include <CLI/Validators.hpp>
#include <algorithm>
#include <iostream>
#include <span>
#include <string_view>

#include "c2r/cli/commands/commands.h"
#include "c2r/cli/completion.h"
#include "c2r/cli/help_format.h"
#include "c2r/cli/printable.h"
#include "c2r/cli/ranks.h"
#include "c2r/cli/run.h"
#include "c2r/core/error.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/core/shown.h"
#include "c2r/core/version.h"

namespace c2r::cli {
namespace {

// Letters to insert, delete or replace, and neighbours to exchange (optimal string alignment).
std::size_t edit_distance(std::string_view from, std::string_view to) {
  Matrix<std::int64_t> least(std::ssize(from) + 1,
                             std::ssize(to) + 1);  // of the first f, t letters
  for (std::int64_t f = 0; f < least.rows(); ++f) {
    for (std::int64_t t = 0; t < least.cols(); ++t) {
      if (f == 0 || t == 0) {
        least(f, t) = f + t;
        continue;
      }
      const auto letter = [](std::string_view word, std::int64_t n) {
        return word[static_cast<std::size_t>(n - 1)];
      };
      const bool is_same = letter(from, f) == letter(to, t);
      least(f, t) = std::min(
          {least(f - 1, t) + 1, least(f, t - 1) + 1, least(f - 1, t - 1) + (is_same ? 0 : 1)});
      const bool are_exchanged = f > 1 && t > 1 && letter(from, f) == letter(to, t - 1) &&
                                 letter(from, f - 1) == letter(to, t);
      if (are_exchanged) least(f, t) = std::min(least(f, t), least(f - 2, t - 2) + 1);
    }
  }
  return static_cast<std::size_t>(least.all().back());
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// The command that was being parsed, or the program itself.
const CLI::App& parsed_command(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  return parsed.empty() ? app : *parsed.front();
}

// The innermost command that was being parsed: `model` of `bench model`.
const CLI::App& innermost_command(const CLI::App& app) {
  const CLI::App& command = parsed_command(app);
  return &command == &app ? app : parsed_command(command);
}

std::string prefix(const CLI::App& app) {
  const CLI::App& command = parsed_command(app);
  return &command == &app ? "c2r: " : "c2r " + command.get_name() + ": ";
}

// The message for a wrong command line, in one line. For a misspelt name it suggests the nearest
// one.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = innermost_command(app);
  const auto words = command.remaining();
  const auto commands = command_names(command);
  if (words.empty() && !commands.empty()) {
    return fmt::format("{}a command must follow: {}", prefix(app), fmt::join(commands, ", "));
  }
  if (words.empty()) return prefix(app) + error.what();
  const bool is_option = words[0].starts_with("-");
  if (is_option) {
    const std::string name = words[0].substr(0, words[0].find('='));
    return fmt::format("{}unknown option '{}'{}", prefix(app), name,
                       suggestion(name, option_names(command)));
  }
  if (!commands.empty()) {
    return fmt::format("{}unknown command '{}'{}", prefix(app), words[0],
                       suggestion(words[0], commands));
  }
  return fmt::format("{}unexpected argument '{}'", prefix(app), words[0]);
}

void add_help(CLI::App& app) {
  auto* const help = app.add_subcommand("help", "explain a command");
  auto words = std::make_shared<std::vector<std::string>>();
  help->add_option("command", *words, "the command to explain");
  help->callback([&app, words] {
    CLI::App* command = &app;
    std::string parents;
    for (const std::string& word : *words) {
      const auto names = command_names(*command);
      C2R_REQUIRE(!names.empty(), kInvalidArgument, "unexpected argument '{}'", word);
      C2R_REQUIRE(std::ranges::count(names, word) > 0, kInvalidArgument, "unknown command '{}'{}",
                  word, suggestion(word, names));
      parents += (parents.empty() ? "" : " ") + command->get_name();
      command = command->get_subcommand(word);
    }
    // app.help() would be that of the command that was parsed: of "help" itself
    std::cout << (command == &app ? app.get_formatter()->make_help(&app, app.get_name(),
                                                                   CLI::AppFormatMode::Normal)
                                  : command->help(parents));
  });
}

// A command without rank options fails if several processes were started.
void refuse_ranks_without_options(CLI::App& app) {
  for (CLI::App* const command : app.get_subcommands({})) {
    if (has_rank_options(*command)) continue;
    command->parse_complete_callback([name = command->get_name()] { refuse_ranks(name); });
  }
}

void parse(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    app.exit(e);
  }
  std::cout.flush();
  C2R_REQUIRE(std::cout.good(), kInvalidFile, "cannot write to standard output");
}

int parse_and_run(CLI::App& app, int argc, const char* const* argv) {
  try {
    parse(app, argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& e) {  // the message was printed already
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    if (prints_for_all_ranks()) std::cerr << printable(usage_message(app, e)) << "\n";
    return kUsage;
  } catch (const Error& e) {
    std::cerr << printable(prefix(app) + e.what()) << "\n";
    return exit_status(e);
  } catch (const std::exception& e) {
    std::cerr << printable(prefix(app) + message_of(e)) << "\n";
    return kFailed;
  }
}

}  // namespace

CLI::Validator in_range(std::int64_t min, std::int64_t max) {
  return CLI::Range(min, max).description("");  // the help text says it in words
}

CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::string>& lists,
                      const std::string& help) {
  return command.add_option(name, lists, help)->check([](const std::string& list) -> std::string {
    const auto parts = parts_of({list});
    return std::ranges::count(parts, "") == 0 ? "" : "there is an empty value in '" + list + "'";
  });
}

std::vector<std::string> parts_of(const std::vector<std::string>& lists) {
  std::vector<std::string> parts;
  for (const std::string& list : lists) {
    for (std::size_t begin = 0; begin <= list.size();) {
      const std::size_t end = std::min(list.find(',', begin), list.size());
      parts.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return parts;
}

CLI::Validator number_in(double min, double max) {
  const auto check = [min, max](const std::string& word) {
    double value = 0;
    const bool is_number = CLI::detail::lexical_cast(word, value);
    if (is_number && min <= value && value <= max) return std::string();
    return fmt::format("'{}' is not a number from {:g} to {:g}", word, min, max);
  };
  return {check, ""};  // the help text says it in words
}

void add_threads(CLI::App& command, int& num_threads) {
  num_threads = default_num_threads();
  command
      .add_option_function<int>(
          "--threads",
          [&num_threads](int given) { num_threads = given > 0 ? given : default_num_threads(); },
          "threads, at most 1024; 0, the default, means all processors")
      ->check(in_range(0, 1024))
      ->type_name("N");
}

std::string suggestion(const std::string& word, const std::vector<std::string>& words) {
  const auto distance = [&](const std::string& candidate) {
    return edit_distance(candidate, word);
  };
  const auto& nearest = *std::ranges::min_element(words, {}, distance);
  if (3 * distance(nearest) > nearest.size()) return "";
  return fmt::format("; did you mean '{}'?", nearest);
}

std::string message_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return "out of memory";
  return shown(error.what(), 200);
}

int run(int argc, const char* const* argv, MakeCudaDevice make_cuda_device) {
  CLI::App app(
      "Collaboration-constrained routing and expert parallelism for Mixture-of-Experts models.",
      "c2r");
  app.formatter(std::make_shared<HelpFormat>());  // the commands added below inherit it
  app.set_version_flag("--version", version_text());
  app.require_subcommand(1);
  app.footer("`c2r help COMMAND` explains a command and shows an example.");
  add_import(app);
  add_analyze(app);
  add_collaborators(app);
  add_plan(app);
  add_simulate(app);
  add_compare(app);
  add_report(app);
  add_export(app);
  add_tokenize(app);
  add_inspect(app);
  add_profile(app);
  add_score(app);
  add_generate(app);
  add_permute(app);
  add_bench(app, make_cuda_device);
  refuse_ranks_without_options(app);
  add_help(app);  // last: any number of processes may print the help
  if (argc == 1) {
    std::cerr << app.help();
    return kUsage;
  }
  const std::span words(argv, static_cast<std::size_t>(argc));
  if (std::string_view(words[1]) == kCompletionOption) {
    print_completions(app, words.subspan(2));
    return 0;
  }
  if (std::string_view(words[1]) == "--man") {  // for the installation, which makes c2r.1 of it
    std::cout << manual_page(app);
    return 0;
  }
  return parse_and_run(app, argc, argv);
}

}  // namespace c2r::cli
