// Removes temporary files when a signal ends the program: a handler, which must not allocate or
// delete, wakes a thread that does.
#include "c2r/cli/signals.h"

#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): <csignal> lacks sigaction
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <system_error>
#include <thread>

#include "c2r/io/temporaries.h"

namespace c2r::cli {
namespace {

constexpr int kEnding[] = {SIGTERM, SIGINT, SIGHUP};
constexpr unsigned char kFailed = 0;  // instead of a signal: the process ends with status 1

std::atomic<bool> is_ending = false;   // a signal that ends the process has come
std::atomic<int> pipe_to_thread = -1;  // where handlers write what ends the process; -1: no thread

// Waits for what ends the process, and ends it.
void take_signals(int pipe) {
  unsigned char signal = kFailed;
  while (::read(pipe, &signal, 1) != 1) {
  }
  remove_temporaries();
  if (signal == kFailed) _exit(1);
  ::signal(signal, SIG_DFL);
  ::kill(::getpid(), signal);
}

void on_ending_signal(int signal) {
  const int before = errno;
  const auto byte = static_cast<unsigned char>(signal);
  is_ending = true;
  if (::write(pipe_to_thread, &byte, 1) != 1) is_ending = false;
  errno = before;
}

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// The hexadecimal number at the begin of `text`, which it is cut from.
std::uintptr_t take_hexadecimal(std::string_view& text) {
  std::uintptr_t value = 0;
  while (!text.empty()) {
    const char c = text[0];
    const int digit = '0' <= c && c <= '9' ? c - '0' : 'a' <= c && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) break;
    value = value * 16 + static_cast<std::uintptr_t>(digit);
    text.remove_prefix(1);
  }
  return value;
}

// The file of a line "BEGIN-END PERMISSIONS OFFSET DEVICE INODE PATH" if it has the address.
std::string_view file_at(std::string_view line, std::uintptr_t address) {
  const std::uintptr_t begin = take_hexadecimal(line);
  if (!line.starts_with('-')) return {};
  line.remove_prefix(1);
  const std::uintptr_t end = take_hexadecimal(line);
  const auto path = line.find('/');
  if (address < begin || end <= address || path == std::string_view::npos) return {};
  return line.substr(path);
}

// Writes the path of the file that is mapped at an address, without what could control a terminal.
// Reads /proc/self/maps piece by piece, as a signal handler must not allocate.
bool write_file_at(std::uintptr_t address) {
  static char buffer[8192];  // a line has at most PATH_MAX and 100 bytes
  const int fd = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  std::size_t filled = 0;
  for (;;) {
    const ssize_t num_read = ::read(fd, buffer + filled, sizeof(buffer) - filled);
    if (num_read <= 0) return false;
    filled += static_cast<std::size_t>(num_read);
    std::string_view rest(buffer, filled);
    for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
      const std::string_view path = file_at(rest.substr(0, end), address);
      if (!path.empty()) {
        for (const char& c : path) {
          const auto byte = static_cast<unsigned char>(c);
          write_all(byte < 0x20 || byte == 0x7f ? std::string_view("?") : std::string_view(&c, 1));
        }
        return true;
      }
      rest.remove_prefix(end + 1);
    }
    filled = rest.size();
    std::memmove(buffer, rest.data(), filled);
  }
}

void on_bus_error(int signal, siginfo_t* info, void*) {
  static std::atomic_flag is_first = ATOMIC_FLAG_INIT;
  if (is_first.test_and_set()) {  // another thread says it
    for (;;) ::pause();
  }
  write_all("c2r: ");
  if (!write_file_at(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
    write_all("a bus error that is not of a mapped file\n");
    ::signal(signal, SIG_DFL);
    return;  // to the instruction that failed, which fails again
  }
  write_all(
      " has become shorter while it was read, or its disk has failed; replace files by renaming "
      "new ones, as c2r does\n");
  if (pipe_to_thread < 0 || ::write(pipe_to_thread, &kFailed, 1) != 1) _exit(1);
  for (;;) ::pause();
}

}  // namespace

void handle_signals() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);

  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  try {
    std::thread(take_signals, ends[0]).detach();
  } catch (const std::system_error&) {  // no more threads: signals end the process at once
    return;
  }
  pipe_to_thread = ends[1];
  struct sigaction ending {};
  ending.sa_handler = on_ending_signal;
  ending.sa_flags = SA_RESTART;
  sigemptyset(&ending.sa_mask);
  for (const int signal : kEnding) {
    struct sigaction before {};
    ::sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) ::sigaction(signal, &ending, nullptr);  // as nohup sets it
  }
}

void await_ending_signal() {
  while (is_ending) ::pause();
}

}  // namespace c2r::cli
