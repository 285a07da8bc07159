#include "client/cli/bench_attend.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/cli/query_source.h"

namespace attic::cli {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What the threads of one run share.
struct Shared {
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  Mutex mutex;
  absl::Status error ATTIC_GUARDED_BY(mutex);
  size_t done ATTIC_GUARDED_BY(mutex) = 0;
  double coverage_sum ATTIC_GUARDED_BY(mutex) = 0;
  double estimated_error_sum ATTIC_GUARDED_BY(mutex) = 0;
};

double Mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / std::max<size_t>(1, values.size());
}

absl::StatusOr<AttendAnswer> AttendOnce(Client& client, const AttendItem& item,
                                        absl::Duration timeout) {
  ATTIC_ASSIGN_OR_RETURN(std::vector<AttendAnswer> answers,
                         client.Attend({&item, 1}, absl::Now() + timeout));
  ATTIC_RETURN_IF_ERROR(answers.front().status);
  return std::move(answers.front());
}

void Record(Shared& shared, size_t request, double milliseconds, AttendAnswer answer,
            AttendBenchResult& result, ProgressBar& progress) {
  MutexLock lock(shared.mutex);
  result.milliseconds[request] = milliseconds;
  result.outputs[request] = std::move(answer.output);
  result.mean_bytes_read += static_cast<double>(answer.read.bytes_read);
  result.degraded += answer.degraded ? 1 : 0;
  shared.coverage_sum += Mean(answer.coverage);
  shared.estimated_error_sum += Mean(answer.estimated_error);
  progress.Update(static_cast<int64_t>(++shared.done));
}

}  // namespace

absl::StatusOr<AttendBenchResult> RunAttendBench(Client& client, const SessionDescription& session,
                                                 const AttendBenchOptions& options, AttendMode mode,
                                                 ProgressBar& progress) {
  ATTIC_ASSIGN_OR_RETURN(const uint32_t layer, ChooseLayer(session, options.layer));
  AttendBenchResult result{.mode = mode};
  result.milliseconds.resize(options.requests);
  result.outputs.resize(options.requests);
  Shared shared;
  const auto work = [&] {
    for (size_t i = shared.next++; i < options.requests && !shared.failed; i = shared.next++) {
      const std::vector<float> queries = RandomQueries(session.fingerprint, options.seed + i);
      const AttendItem item{.session_id = session.session_id,
                            .layer = layer,
                            .mode = mode,
                            .selection = options.selection,
                            .queries = queries};
      const Clock::time_point start = Clock::now();
      absl::StatusOr<AttendAnswer> answer = AttendOnce(client, item, options.timeout);
      const double milliseconds = SecondsSince(start) * 1e3;
      if (answer.ok()) {
        Record(shared, i, milliseconds, *std::move(answer), result, progress);
        continue;
      }
      MutexLock lock(shared.mutex);
      if (!shared.failed.exchange(true)) shared.error = answer.status();
    }
  };
  const Clock::time_point start = Clock::now();
  std::vector<std::thread> threads;
  for (size_t t = 1; t < options.threads; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  result.seconds = SecondsSince(start);
  MutexLock lock(shared.mutex);
  ATTIC_RETURN_IF_ERROR(shared.error);
  const double requests = std::max<double>(1, static_cast<double>(options.requests));
  result.mean_coverage = shared.coverage_sum / requests;
  result.mean_estimated_error = shared.estimated_error_sum / requests;
  result.mean_bytes_read /= requests;
  return result;
}

std::vector<double> OutputErrors(const AttendBenchResult& answer, const AttendBenchResult& exact) {
  std::vector<double> errors;
  for (size_t i = 0; i < answer.outputs.size(); ++i) {
    double difference = 0, norm = 0;
    for (size_t j = 0; j < exact.outputs[i].size(); ++j) {
      const double want = exact.outputs[i][j];
      difference += std::pow(answer.outputs[i][j] - want, 2);
      norm += want * want;
    }
    errors.push_back(norm > 0 ? std::sqrt(difference / norm) : 0);
  }
  return errors;
}

}  // namespace attic::cli
