#include "server/service/call_metrics.h"

#include <vector>

namespace attic {
namespace {

struct MethodTraits {
  Method method;
  const char* name;
  CallKind kind;
};

constexpr std::array<MethodTraits, kMethods> kTraits = {{
    {Method::kOpen, "Open", CallKind::kSession},
    {Method::kDescribe, "Describe", CallKind::kSession},
    {Method::kPlan, "Plan", CallKind::kSession},
    {Method::kList, "List", CallKind::kSession},
    {Method::kFork, "Fork", CallKind::kSession},
    {Method::kTruncate, "Truncate", CallKind::kSession},
    {Method::kFlush, "Flush", CallKind::kSession},
    {Method::kExtendPrefix, "ExtendPrefix", CallKind::kSession},
    {Method::kRenewLease, "RenewLease", CallKind::kSession},
    {Method::kPin, "Pin", CallKind::kSession},
    {Method::kClose, "Close", CallKind::kSession},
    {Method::kExport, "Export", CallKind::kSnapshot},
    {Method::kImport, "Import", CallKind::kSnapshot},
    {Method::kGetStatus, "GetStatus", CallKind::kSession},
    {Method::kAppend, "Append", CallKind::kAppend},
    {Method::kAttend, "Attend", CallKind::kAttend},
    {Method::kAttendStream, "AttendStream", CallKind::kAttend},
    {Method::kSearch, "Search", CallKind::kSearch},
    {Method::kCall, "Call", CallKind::kSession},
    {Method::kInventory, "Inventory", CallKind::kSnapshot},
    {Method::kDigest, "Digest", CallKind::kSnapshot},
    {Method::kReadRows, "ReadRows", CallKind::kSnapshot},
    {Method::kGetMap, "GetMap", CallKind::kSession},
    {Method::kGetRepair, "GetRepair", CallKind::kSession},
    {Method::kChangeNode, "ChangeNode", CallKind::kSession},
    {Method::kRebalance, "Rebalance", CallKind::kSession},
}};

constexpr bool InOrder() {
  for (size_t i = 0; i < kMethods; ++i) {
    if (static_cast<size_t>(kTraits[i].method) != i) return false;
  }
  return true;
}
static_assert(InOrder());

// Seconds: from an answer out of cache to the longest wait for a builder.
std::vector<double> DurationBounds() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
          0.1,    0.25,    0.5,    1,     2.5,    5,     10,   30,    60};
}

// What is attended exactly altogether is the bucket above all.
std::vector<double> CoverageBounds() { return {0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999}; }

std::vector<double> ErrorBounds() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1};
}

template <typename Counters>
CountsByCode Read(const Counters& counters) {
  CountsByCode counts;
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = counters[i];
  return counts;
}

}  // namespace

const char* MethodName(Method method) { return kTraits[static_cast<size_t>(method)].name; }

CallKind KindOf(Method method) { return kTraits[static_cast<size_t>(method)].kind; }

const char* CallKindName(CallKind kind) {
  constexpr std::array<const char*, kCallKinds> kNames = {"append", "attend", "search", "session",
                                                          "snapshot"};
  return kNames[static_cast<size_t>(kind)];
}

CallMetrics::CallMetrics()
    : durations_{Histogram(DurationBounds()), Histogram(DurationBounds()),
                 Histogram(DurationBounds()), Histogram(DurationBounds()),
                 Histogram(DurationBounds())},
      coverages_(CoverageBounds()),
      estimated_errors_(ErrorBounds()) {}

size_t CallMetrics::IndexOf(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  return index < kStatusCodes ? index : static_cast<size_t>(absl::StatusCode::kUnknown);
}

void CallMetrics::RecordCall(Method method, absl::StatusCode code,
                             std::chrono::nanoseconds duration) {
  calls_[static_cast<size_t>(method)][IndexOf(code)].fetch_add(1, kRelaxed);
  durations_[static_cast<size_t>(KindOf(method))].Observe(
      std::chrono::duration<double>(duration).count());
}

void CallMetrics::RecordAnswer(const AttendAnswer& answer) {
  attend_items_[IndexOf(answer.status.code())].fetch_add(1, kRelaxed);
  if (!answer.status.ok()) return;
  coverages_.Observe(answer.coverage);
  estimated_errors_.Observe(answer.estimated_error);
  if (answer.degraded) degraded_items_.fetch_add(1, kRelaxed);
  RecordRead(answer.read);
}

void CallMetrics::RecordRead(const ReadStatistics& read) {
  tokens_.fetch_add(read.tokens, kRelaxed);
  exact_tokens_.fetch_add(read.exact_tokens, kRelaxed);
  bytes_read_.fetch_add(read.bytes_read, kRelaxed);
  disk_bytes_read_.fetch_add(read.disk_bytes_read, kRelaxed);
}

CountsByCode CallMetrics::calls(Method method) const {
  return Read(calls_[static_cast<size_t>(method)]);
}

CountsByCode CallMetrics::attend_items() const { return Read(attend_items_); }

}  // namespace attic
