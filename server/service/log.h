// Structured log lines on standard error: time=... level=... event=... key=value ...
#ifndef ATTIC_SERVER_SERVICE_LOG_H_
#define ATTIC_SERVER_SERVICE_LOG_H_

#include <initializer_list>
#include <string>
#include <utility>

namespace attic {

enum class LogLevel { kInfo, kWarning, kError };

// Writes one line, in one piece. Values with spaces, quotes or control characters are quoted and
// escaped. Thread-safe.
void Log(LogLevel level, const std::string& event,
         std::initializer_list<std::pair<const char*, std::string>> fields = {});

// The line without its time, for tests.
std::string FormatLogLine(LogLevel level, const std::string& event,
                          std::initializer_list<std::pair<const char*, std::string>> fields);

// Sends the errors that gRPC and protobuf report here too, and drops what else they would print.
void CaptureLibraryLogs();

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_LOG_H_
