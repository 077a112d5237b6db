// What the program does when a signal ends it.
#pragma once

namespace c2r::cli {

/// Handles the signals that end the program, except while other code has handlers of its own:
///  - SIGTERM, SIGINT and SIGHUP remove the temporary files and folders of the process and end it
///    as they do by default.
///  - SIGXFSZ is ignored, so that a write beyond the limit of a file's size fails with an error.
///  - SIGBUS, which a mapped file raises that has become shorter, ends the process with status 1
///    and a line that names the file.
/// To be called once, before other threads start.
void handle_signals();

/// To be called before the program returns from main. If a signal is ending the process, it waits
/// for that end: a command whose files are being removed fails, and its status is not the signal's.
void await_ending_signal();

}  // namespace c2r::cli
