// Runs commands of c2r on mutated files, many in one process, for mutated_commands_test.py:
//   mutated_commands list                           the commands for files that each import reads
//   mutated_commands CASES BEGIN END SEED           runs number BEGIN to END - 1
// A line of CASES is a file to mutate, the path to write it to, and the words of a command, divided
// by tabs. Run number n mutates case n mod the number of cases in a way that n and SEED determine.
// It may fail, with printable lines of which the last is short and begins with "c2r", and it leaves
// no output then. Anything else ends this program with status 1 and the number of the run; a run of
// more than a minute ends it with SIGALRM.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "c2r/cli/run.h"
#include "c2r/core/rng.h"
#include "tests/loaders.h"

namespace c2r {
namespace {

constexpr unsigned kMostSeconds = 60;

struct Case {
  std::string source;  // the content of the file
  std::filesystem::path path;
  std::vector<std::string> words;
};

std::string content_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_content(const std::filesystem::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::vector<Case> read_cases(const char* path) {
  std::vector<Case> cases;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::vector<std::string> fields;
    for (std::size_t begin = 0; begin <= line.size();) {
      const std::size_t end = std::min(line.find('\t', begin), line.size());
      fields.push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    cases.push_back({content_of(fields.at(0)), fields.at(1), {fields.begin() + 2, fields.end()}});
  }
  return cases;
}

// What readers often take for something else.
constexpr std::array<std::string_view, 24> kPieces = {std::string_view("\0", 1),
                                                      "\xff\xff\xff\xff\xff\xff\xff\xff",
                                                      "\x7f",
                                                      "\x80",
                                                      "{",
                                                      "}",
                                                      "[",
                                                      "]",
                                                      "\"",
                                                      ",",
                                                      ":",
                                                      "-1",
                                                      "0",
                                                      "1e308",
                                                      "99999999999999999999",
                                                      "null",
                                                      "true",
                                                      "\\ud800",
                                                      "\n",
                                                      "\r\n",
                                                      "\t",
                                                      "0.5",
                                                      "NaN",
                                                      "[[[[[[[["};

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : rng_(seed) {}

  std::string mutate(std::string text, const std::string& other) {
    // Mostly one, after which many files are still read to their end.
    const auto num_changes = below(2) == 0 ? 1 : 1 + below(4);
    for (std::size_t change = 0; change < num_changes; ++change) change_once(text, other);
    return text;
  }

 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(uniform_below(n, rng_)); }
  std::size_t place(const std::string& text) { return below(text.size() + 1); }
  // A part of the text that begins anywhere, of up to 64 bytes.
  std::string part_of(const std::string& text) { return text.substr(place(text), 1 + below(64)); }

  void change_once(std::string& text, const std::string& other) {
    const std::size_t at = place(text);
    const std::string piece(kPieces[below(kPieces.size())]);
    switch (below(12)) {
      case 0:
        return text.resize(at);
      case 1:
      case 8:
      case 9:
      case 10:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        return;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
        return;
      case 3:
        return void(text.erase(at, 1 + below(16)));
      case 4:
        return void(text.insert(at, part_of(text)));
      case 5:
        return void(text.insert(at, part_of(other)));
      case 6:
        return void(text.insert(at, piece));
      default:
        return void(text.replace(at, std::min(piece.size(), text.size() - at), piece));
    }
  }

  std::mt19937_64 rng_;
};

// Standard error in memory, and standard output nowhere, while this object lives.
class Capture {
 public:
  Capture() : memory_(::memfd_create("stderr", 0)), nowhere_(::open("/dev/null", O_WRONLY)) {
    std::fflush(nullptr);
    ::dup2(memory_, STDERR_FILENO);
    ::dup2(nowhere_, STDOUT_FILENO);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    std::fflush(nullptr);
    ::dup2(kept_error_, STDERR_FILENO);
    ::dup2(kept_output_, STDOUT_FILENO);
    for (const int fd : {memory_, nowhere_, kept_error_, kept_output_}) ::close(fd);
  }

  std::string text() const { return content_of(fmt::format("/proc/self/fd/{}", memory_)); }

 private:
  const int kept_error_ = ::dup(STDERR_FILENO), kept_output_ = ::dup(STDOUT_FILENO);
  const int memory_, nowhere_;
};

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\n' || (byte >= 0x20 && byte != 0x7f);
  });
}

// @returns what is wrong with the end of a command; nothing if all is well
std::optional<std::string> complaint(int status, const std::string& said) {
  if (status < 0 || status > 2) return fmt::format("the exit status is {}", status);
  if (!is_printable(said)) return "a message could control a terminal";
  if (status == 0) return std::nullopt;
  if (!said.ends_with('\n')) return "there is no message";
  const std::string_view lines = std::string_view(said).substr(0, said.size() - 1);
  const std::string_view last = lines.substr(lines.rfind('\n') + 1);  // npos + 1 is 0
  if (!last.starts_with("c2r") || last.size() > 4100) return "the last line is no message";
  return std::nullopt;
}

// Removes the outputs of a command. @returns one of those that a failed one must not leave
std::optional<std::string> remove_outputs() {
  std::optional<std::string> left;
  std::vector<std::filesystem::path> outputs;
  for (const auto& entry : std::filesystem::directory_iterator(".")) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("out") || name.starts_with(".")) outputs.push_back(entry.path());
  }
  for (const auto& path : outputs) {
    left = path.string();
    std::filesystem::remove_all(path);
  }
  return left;
}

bool run(const Case& test, const std::string& content, std::int64_t number) {
  const std::optional<std::string> before =
      std::filesystem::exists(test.path) ? std::optional(content_of(test.path)) : std::nullopt;
  write_content(test.path, content);
  std::vector<const char*> words{"c2r"};
  for (const std::string& word : test.words) words.push_back(word.c_str());
  ::alarm(kMostSeconds);
  int status = 0;
  std::string said;
  {
    const Capture capture;
    status = cli::run(static_cast<int>(words.size()), words.data());
    said = capture.text();
  }
  ::alarm(0);
  std::optional<std::string> wrong = complaint(status, said);
  const auto left = remove_outputs();
  if (status != 0 && left) wrong = "it failed, but left " + *left;
  if (wrong) {
    fmt::print(stderr, "run {}: {}: {}\nc2r {}\n{}", number, test.path.string(), *wrong,
               fmt::join(test.words, " "), said);
    return false;
  }
  if (before) write_content(test.path, *before);
  if (!before) std::filesystem::remove(test.path);
  return true;
}

// The words after the file are as those of load_import().
void print_imports() {
  for (const ImportFormat& format : import_formats()) {
    const bool is_plan = format.makes == ImportKind::kPlan;
    const bool is_told_top_k = format.makes != ImportKind::kTrace || format.name == "sglang";
    fmt::print("{}\t{}{}{}{}{}\n", testing::loader_of(format), format.name,
               format.makes != ImportKind::kStatistics ? "\t--num-experts\t4" : "",
               format.name == "sglang" ? "\t--num-hidden-layers\t1" : "",
               is_told_top_k ? "\t--top-k\t2" : "",
               is_plan ? "\t--layers\t1,3\t--cluster\t1x2" : "");
  }
}

int run_numbers(char** arguments) {
  const std::vector<Case> cases = read_cases(arguments[0]);
  const std::int64_t begin = std::atoll(arguments[1]), end = std::atoll(arguments[2]);
  const auto seed = static_cast<std::uint64_t>(std::atoll(arguments[3]));
  for (std::int64_t number = begin; number < end; ++number) {
    write_content("number", std::to_string(number));  // for who asks after a crash
    const auto n = static_cast<std::size_t>(number);
    Mutator mutator(seed + n);
    const Case& test = cases[n % cases.size()];
    const std::string content =
        mutator.mutate(test.source, cases[(7 * n + 1) % cases.size()].source);
    if (!run(test, content, number)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace c2r

int main(int argc, char** argv) {
  if (argc == 2) {
    c2r::print_imports();
    return 0;
  }
  return argc == 5 ? c2r::run_numbers(argv + 1) : 2;
}
