// Wall time since construction.
#ifndef ATTIC_CLIENT_CLI_BENCH_STOPWATCH_H_
#define ATTIC_CLIENT_CLI_BENCH_STOPWATCH_H_

#include <chrono>

namespace attic::cli {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  double milliseconds() const { return seconds() * 1e3; }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_STOPWATCH_H_
