// What a store has been asked since its start, and what came of it.
#ifndef ATTIC_SERVER_SERVICE_CALL_METRICS_H_
#define ATTIC_SERVER_SERVICE_CALL_METRICS_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "api/types.h"
#include "server/service/histogram.h"

namespace attic {

enum class Method : uint8_t {
  kOpen,
  kDescribe,
  kPlan,
  kList,
  kFork,
  kTruncate,
  kFlush,
  kExtendPrefix,
  kRenewLease,
  kPin,
  kClose,
  kExport,
  kImport,
  kGetStatus,
  kAppend,
  kAttend,
  kAttendStream,
  kSearch,
  // A message of ShardService.Call. What it asks for counts as well, each call by its own method.
  kCall,
  kInventory,
  kDigest,
  kReadRows,
  kGetMap,
  kGetRepair,
  kChangeNode,
  kRebalance,
};
inline constexpr size_t kMethods = static_cast<size_t>(Method::kRebalance) + 1;

// Calls whose durations are counted together.
enum class CallKind : uint8_t { kAppend, kAttend, kSearch, kSession, kSnapshot };
inline constexpr size_t kCallKinds = static_cast<size_t>(CallKind::kSnapshot) + 1;

// google.rpc.Code, from OK to UNAUTHENTICATED.
inline constexpr size_t kStatusCodes = 17;
using CountsByCode = std::array<uint64_t, kStatusCodes>;

// The name in the protocol buffers, such as "ExtendPrefix"; "append", "snapshot" and so on.
const char* MethodName(Method method);
const char* CallKindName(CallKind kind);
CallKind KindOf(Method method);

// Counters of everything that handlers record. Thread-safe and without locks; one recording is a
// handful of relaxed additions, and nothing is looked up by name.
class CallMetrics {
 public:
  CallMetrics();
  CallMetrics(const CallMetrics&) = delete;
  CallMetrics& operator=(const CallMetrics&) = delete;

  // A call, or a request on a stream, was answered with `code`.
  void RecordCall(Method method, absl::StatusCode code, std::chrono::nanoseconds duration);
  void RecordAppended(size_t tokens) { appended_tokens_.fetch_add(tokens, kRelaxed); }
  // One item of an attend request: its coverage, its errors and what it read.
  void RecordAnswer(const AttendAnswer& answer);
  // An item that came to no answer.
  void RecordItemError(absl::StatusCode code) {
    attend_items_[IndexOf(code)].fetch_add(1, kRelaxed);
  }
  void RecordRead(const ReadStatistics& read);

  CountsByCode calls(Method method) const;
  HistogramCounts durations(CallKind kind) const {  // in seconds
    return durations_[static_cast<size_t>(kind)].Read();
  }
  CountsByCode attend_items() const;
  HistogramCounts coverages() const { return coverages_.Read(); }  // a number for each query head
  HistogramCounts estimated_errors() const { return estimated_errors_.Read(); }  // the same
  uint64_t degraded_items() const { return degraded_items_; }
  uint64_t appended_tokens() const { return appended_tokens_; }
  uint64_t tokens() const { return tokens_; }  // this and the next as of ReadStatistics
  uint64_t exact_tokens() const { return exact_tokens_; }
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t disk_bytes_read() const { return disk_bytes_read_; }

 private:
  using Counter = std::atomic<uint64_t>;
  using CountersByCode = std::array<Counter, kStatusCodes>;
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;

  // Codes of later versions count as UNKNOWN.
  static size_t IndexOf(absl::StatusCode code);

  std::array<CountersByCode, kMethods> calls_{};
  std::array<Histogram, kCallKinds> durations_;
  CountersByCode attend_items_{};
  Histogram coverages_;
  Histogram estimated_errors_;
  Counter degraded_items_{0};
  Counter appended_tokens_{0};
  Counter tokens_{0};
  Counter exact_tokens_{0};
  Counter bytes_read_{0};
  Counter disk_bytes_read_{0};
};

// One call, or one of a message, from its arrival on. Cheap to copy; `metrics` outlives it.
class CallTimer {
 public:
  CallTimer(CallMetrics& metrics, Method method)
      : metrics_(&metrics), method_(method), arrival_(std::chrono::steady_clock::now()) {}

  // Of a call by `method` that arrived with this one.
  CallTimer For(Method method) const {
    CallTimer timer = *this;
    timer.method_ = method;
    return timer;
  }

  // To be called once, before the answer is sent: who has the answer finds the call counted.
  void End(absl::StatusCode code) const {
    metrics_->RecordCall(method_, code, std::chrono::steady_clock::now() - arrival_);
  }

 private:
  CallMetrics* metrics_;
  Method method_;
  std::chrono::steady_clock::time_point arrival_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_CALL_METRICS_H_
