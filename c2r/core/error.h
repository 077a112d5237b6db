// The library's one exception type, and the two checks that guard it.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>

namespace c2r {

enum class ErrorCode { kInvalidArgument, kInvalidFile, kUnsupported, kTransport, kTimeout };

/// The exception for what a caller, a file or a peer got wrong. The CLI and the bindings translate
/// it in one place. Bugs of c2r itself are found by C2R_ASSERT and never become an Error.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

/// @returns the message of the last system call that failed, from errno
std::string last_system_error();

[[noreturn]] void abort_on_bug(const char* expr, const char* file, int line);

}  // namespace c2r

/// Throws an Error whose message is made by fmt: C2R_THROW(kInvalidFile, "{}: is empty", path).
#define C2R_THROW(code, ...) throw ::c2r::Error(::c2r::ErrorCode::code, ::fmt::format(__VA_ARGS__))

/// Checks input, in every build. The message is built only on failure and must name the values.
#define C2R_REQUIRE(cond, code, ...) ((cond) ? void() : C2R_THROW(code, __VA_ARGS__))

/// Checks our own invariants, in debug and CI builds. Never for anything a user can cause.
#ifdef C2R_ENABLE_ASSERTS
#define C2R_ASSERT(cond) ((cond) ? void() : ::c2r::abort_on_bug(#cond, __FILE__, __LINE__))
#else
#define C2R_ASSERT(cond) static_cast<void>(sizeof(!(cond)))
#endif
