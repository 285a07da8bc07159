#include "server/service/log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace attic {
namespace {

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

bool NeedsQuotes(const std::string& value) {
  if (value.empty()) return true;
  for (const char c : value) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c > '~') return true;
  }
  return false;
}

void LogFromGrpc(gpr_log_func_args* args) {
  const LogLevel level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kError : LogLevel::kWarning;
  Log(level, "grpc", {{"message", args->message}});
}

void LogFromProtobuf(google::protobuf::LogLevel level, const char*, int,
                     const std::string& message) {
  if (level < google::protobuf::LOGLEVEL_ERROR) return;
  Log(LogLevel::kError, "protobuf", {{"message", message}});
}

}  // namespace

std::string FormatLogLine(LogLevel level, const std::string& event,
                          std::initializer_list<std::pair<const char*, std::string>> fields) {
  std::string line = absl::StrCat("level=", LevelName(level), " event=", event);
  for (const auto& [key, value] : fields) {
    if (NeedsQuotes(value)) {
      absl::StrAppend(&line, " ", key, "=\"", absl::CHexEscape(value), "\"");
    } else {
      absl::StrAppend(&line, " ", key, "=", value);
    }
  }
  return line;
}

void Log(LogLevel level, const std::string& event,
         std::initializer_list<std::pair<const char*, std::string>> fields) {
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const std::string line =
      absl::StrCat("time=", time, " ", FormatLogLine(level, event, fields), "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void CaptureLibraryLogs() {
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
  gpr_set_log_function(LogFromGrpc);
  google::protobuf::SetLogHandler(LogFromProtobuf);
}

}  // namespace attic
