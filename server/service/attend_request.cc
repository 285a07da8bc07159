#include "server/service/attend_request.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "server/service/session_gate.h"
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

absl::Status AnswerAttend(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::AttendRequest& request, absl::Time arrival, absl::Time deadline,
                          v1::AttendResponse& response) {
  response.set_request_id(request.request_id());
  response.set_boot_id(identity.boot_id);
  response.set_epoch(identity.gate.epoch());
  ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, identity.gate.Admit(request.epoch()));
  response.set_epoch(pass.epoch());

  const size_t count = static_cast<size_t>(request.items_size());
  std::vector<std::vector<float>> queries(count);
  std::vector<absl::Status> refused(count);
  std::vector<AttendItem> items;
  for (size_t i = 0; i < count; ++i) {
    auto item = wire::FromWire(request.items(static_cast<int>(i)), request.layer(), queries[i]);
    refused[i] = item.ok() ? CheckSessionRead(store, pass, item->session_id) : item.status();
    if (refused[i].ok()) {
      items.push_back(*std::move(item));
    } else if (item.ok()) {
      NotifyOfGap(identity.gate, item->session_id, refused[i]);
    }
  }
  std::vector<AttendAnswer> answers;
  if (count == 0 || !items.empty()) {
    ATTIC_ASSIGN_OR_RETURN(answers,
                           store.Attend(items, EarlierDeadline(request, arrival, deadline)));
  }
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    if (refused[i].ok()) {
      const AttendAnswer& answer = answers[next];
      NotifyOfGap(identity.gate, items[next].session_id, answer.status);
      ++next;
      metrics.RecordAnswer(answer);
      *response.add_items() = wire::ToWire(answer);
    } else {
      metrics.RecordItemError(refused[i].code());
      *response.add_items()->mutable_error() = wire::ToWire(refused[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status AnswerSearch(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::SearchRequest& request, absl::Time deadline,
                          v1::SearchResponse& response) {
  ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, identity.gate.Admit(request.epoch()));
  ATTIC_RETURN_IF_ERROR(CheckSessionRead(store, pass, request.session_id()));
  std::vector<float> queries;
  ATTIC_ASSIGN_OR_RETURN(const SearchRequest search, wire::FromWire(request, queries));
  const absl::StatusOr<SearchAnswer> answer = store.Search(search, deadline);
  NotifyOfGap(identity.gate, request.session_id(), answer.status());
  ATTIC_RETURN_IF_ERROR(answer.status());
  metrics.RecordRead(answer->read);
  response = wire::ToWire(*answer);
  response.set_epoch(pass.epoch());
  response.set_boot_id(identity.boot_id);
  return absl::OkStatus();
}

namespace {

absl::StatusOr<AppendAck> PassAndAppend(SessionStore& store, const SlotPass& pass,
                                        const v1::AppendRequest& request, absl::Time deadline) {
  ATTIC_RETURN_IF_ERROR(CheckSessionWrite(store, pass, request.session_id()));
  std::vector<float> query_sample;
  ATTIC_ASSIGN_OR_RETURN(const AppendBatch batch, wire::FromWire(request, query_sample));
  return store.Append(batch, deadline);
}

}  // namespace

absl::Status AnswerAppend(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::AppendRequest& request, absl::Time deadline,
                          v1::AppendResponse& response) {
  response.set_boot_id(identity.boot_id);
  response.set_epoch(identity.gate.epoch());
  ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, identity.gate.Admit(request.epoch()));
  response.set_epoch(pass.epoch());
  const absl::StatusOr<AppendAck> ack = PassAndAppend(store, pass, request, deadline);
  NotifyOfGap(identity.gate, request.session_id(), ack.status());
  ATTIC_RETURN_IF_ERROR(ack.status());
  response.set_watermark(ack->watermark);
  response.set_durable_watermark(ack->durable_watermark);
  metrics.RecordAppended(request.count());
  return absl::OkStatus();
}

}  // namespace attic
