// The command line of `attic` as a function.
#ifndef ATTIC_CLIENT_CLI_COMMAND_LINE_H_
#define ATTIC_CLIENT_CLI_COMMAND_LINE_H_

namespace attic::cli {

// Parses, runs the command and returns the exit code: 0 for success, 1 after printing one line
// "error: ..." to stderr, or what the command says. Results go to stdout.
int RunCommandLine(int argc, const char* const* argv);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_COMMAND_LINE_H_
