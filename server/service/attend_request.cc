#include "server/service/attend_request.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "wire/convert.h"

namespace attic {
namespace {

// Budgets beyond an hour are as good as none, and adding them to a time stays well defined.
constexpr uint64_t kBudgetMaxUs = 3'600'000'000;

absl::Time EarlierDeadline(const v1::AttendRequest& request, absl::Time arrival,
                           absl::Time deadline) {
  if (request.budget_us() == 0 || request.budget_us() > kBudgetMaxUs) return deadline;
  return std::min(deadline,
                  arrival + absl::Microseconds(static_cast<int64_t>(request.budget_us())));
}

}  // namespace

absl::Status CheckEpoch(const StoreIdentity& identity, uint64_t epoch) {
  if (epoch == 0 || epoch == identity.epoch) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("epoch: ", epoch, " asked for, the store is at ", identity.epoch));
}

absl::Status AnswerAttend(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::AttendRequest& request, absl::Time arrival, absl::Time deadline,
                          v1::AttendResponse& response) {
  response.set_request_id(request.request_id());
  response.set_epoch(identity.epoch);
  response.set_boot_id(identity.boot_id);
  ATTIC_RETURN_IF_ERROR(CheckEpoch(identity, request.epoch()));

  const size_t count = static_cast<size_t>(request.items_size());
  std::vector<std::vector<float>> queries(count);
  std::vector<absl::Status> malformed(count);
  std::vector<AttendItem> items;
  for (size_t i = 0; i < count; ++i) {
    auto item = wire::FromWire(request.items(static_cast<int>(i)), request.layer(), queries[i]);
    malformed[i] = item.status();
    if (item.ok()) items.push_back(*std::move(item));
  }
  std::vector<AttendAnswer> answers;
  if (count == 0 || !items.empty()) {
    ATTIC_ASSIGN_OR_RETURN(answers,
                           store.Attend(items, EarlierDeadline(request, arrival, deadline)));
  }
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    if (malformed[i].ok()) {
      const AttendAnswer& answer = answers[next++];
      metrics.RecordAnswer(answer);
      *response.add_items() = wire::ToWire(answer);
    } else {
      metrics.RecordItemError(malformed[i].code());
      *response.add_items()->mutable_error() = wire::ToWire(malformed[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace attic
