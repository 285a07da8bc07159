#include "gpu_worker/model/full_attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace attic::worker {
namespace {

constexpr absl::Duration kRetryBudget = absl::Seconds(30);

// The store's share of the mass times what it left unattended is all that is missing.
double SmallestCoverage(const StoreAnswer& answer, const std::vector<float>& merged_log_sum_exp) {
  double smallest = 1.0;
  for (size_t i = 0; i < merged_log_sum_exp.size(); ++i) {
    const double share = std::exp(double{answer.log_sum_exp[i]} - merged_log_sum_exp[i]);
    smallest = std::min(smallest, 1.0 - std::min(1.0, share) * (1.0 - answer.coverage[i]));
  }
  return smallest;
}

// Asks within the call's budget. An answer that is late or lost is asked for once more with time to
// spare: a slow store costs time, never the sequence.
absl::Status AskStore(const FullAttentionCall& call, const PositionRange& range, bool growing,
                      StoreSession& store, StoreAnswer& answer) {
  const StoreQuestion question{.stored_layer = call.stored_layer,
                               .count = call.count,
                               .queries = call.queries,
                               .range = range,
                               .growing = growing,
                               .mode = call.mode,
                               .selection = call.selection};
  const absl::Status first = store.Attend(question, absl::Now() + call.budget, answer);
  if (!absl::IsDeadlineExceeded(first) && !absl::IsUnavailable(first)) return first;
  return store.Attend(question, absl::Now() + kRetryBudget, answer);
}

}  // namespace

absl::Status AttendFull(const AttentionShape& shape, int64_t sink_tokens,
                        const FullAttentionCall& call, LocalCache& local, StoreSession* store,
                        FullAttentionResult& result) {
  const PositionRange remote{sink_tokens, local.window_begin()};
  const bool ask = remote.begin < remote.end;
  ATTIC_CHECK(!ask || store != nullptr);
  // Catching up with appends is no part of the attention's own time.
  if (ask) ATTIC_RETURN_IF_ERROR(store->EnsureHeld(remote.end));

  const absl::Time start = absl::Now();
  ATTIC_RETURN_IF_ERROR(local.StartAttend(call.stored_layer, call.count, call.queries));
  StoreAnswer answer;
  absl::Status asked;
  if (ask) asked = AskStore(call, remote, /*growing=*/false, *store, answer);
  PartialView other;
  if (ask && asked.ok()) other = {answer.output.data(), answer.log_sum_exp.data()};
  result.output.resize(call.count * shape.query_floats());
  result.log_sum_exp.resize(call.count * shape.q_heads);
  // The local part is waited for even when the store failed.
  const absl::Status finished =
      local.FinishAttend(other, result.output.data(), result.log_sum_exp.data());
  ATTIC_RETURN_IF_ERROR(asked);
  ATTIC_RETURN_IF_ERROR(finished);
  result.milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  result.coverage = ask ? SmallestCoverage(answer, result.log_sum_exp) : 1.0;
  result.estimated_error = answer.estimated_error;
  result.degraded = answer.degraded;
  result.bytes_read = answer.bytes_read;
  return absl::OkStatus();
}

absl::Status AttendHeld(int64_t first_position, const FullAttentionCall& call, StoreSession& store,
                        FullAttentionResult& result) {
  const absl::Time start = absl::Now();
  StoreAnswer answer;
  ATTIC_RETURN_IF_ERROR(AskStore(call, {0, first_position + 1}, /*growing=*/true, store, answer));
  result.milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  result.coverage = SmallestCoverage(answer, answer.log_sum_exp);
  result.estimated_error = answer.estimated_error;
  result.degraded = answer.degraded;
  result.bytes_read = answer.bytes_read;
  result.output = std::move(answer.output);
  result.log_sum_exp = std::move(answer.log_sum_exp);
  return absl::OkStatus();
}

double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0, size = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  if (difference == 0.0) return 0.0;
  return std::sqrt(difference / size);
}

}  // namespace attic::worker
