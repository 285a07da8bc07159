// A progress bar on stderr, shown only when stderr is a terminal.
#ifndef ATTIC_CLIENT_CLI_PROGRESS_H_
#define ATTIC_CLIENT_CLI_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace attic::cli {

// One line: "reading     [#####.....]  52%  545,000/1,048,576 tokens  12 s left". Not thread-safe.
class ProgressBar {
 public:
  // total == 0: unknown, only the count is shown.
  ProgressBar(std::string label, int64_t total, std::string unit, bool enabled = true);
  // Clears the line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Redraws at most ten times a second.
  void Update(int64_t done);

  // The line at `done` after `seconds`, without colours; what Update draws.
  std::string Line(int64_t done, double seconds) const;

 private:
  using Clock = std::chrono::steady_clock;

  const std::string label_;
  const int64_t total_;
  const std::string unit_;
  const bool shown_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_;
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_PROGRESS_H_
