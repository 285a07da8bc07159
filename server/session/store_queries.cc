#include "server/session/store_queries.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/session/placement_rules.h"
#include "server/session/validation.h"

namespace attic {

absl::StatusOr<PreparedQuery> StoreQueries::Prepare(const AttendItem& item) const {
  ATTIC_RETURN_IF_ERROR(ValidateRange(item.range));
  ATTIC_RETURN_IF_ERROR(ValidateSelection(item.selection, limits_));
  PreparedQuery prepared;
  ATTIC_ASSIGN_OR_RETURN(prepared.session, sessions_.Use(item.session_id));
  ATTIC_RETURN_IF_ERROR(
      CheckHoldsTokens(item.session_id, prepared.session->attributes().placement));
  ATTIC_ASSIGN_OR_RETURN(const StoredLayer* stored, prepared.session->FindLayer(item.layer));
  ATTIC_RETURN_IF_ERROR(ValidateQueries(item.queries, prepared.session->fingerprint()));
  prepared.layer = stored->Snapshot();
  if (prepared.layer.watermark < item.min_watermark) {
    return absl::FailedPreconditionError(absl::StrCat("min_watermark: ", item.min_watermark,
                                                      " asked for, the layer's watermark is ",
                                                      prepared.layer.watermark));
  }
  ATTIC_RETURN_IF_ERROR(prepared.session->CheckReadable(item.range.end, prepared.layer.watermark));
  prepared.range.end = std::min(item.range.end, prepared.layer.watermark);
  prepared.range.begin = std::min(item.range.begin, prepared.range.end);
  prepared.mode = item.mode;
  if (item.mode != AttendMode::kExact) prepared.selection = item.selection;
  prepared.queries = item.queries;
  return prepared;
}

absl::StatusOr<std::vector<AttendAnswer>> StoreQueries::Attend(std::span<const AttendItem> items,
                                                               absl::Time deadline) {
  if (items.empty()) return absl::InvalidArgumentError("items: must not be empty");
  if (items.size() > limits_.attend_items_max) {
    return absl::ResourceExhaustedError(absl::StrCat("items: ", items.size(),
                                                     " is over the limit attend_items_max of ",
                                                     limits_.attend_items_max));
  }
  std::vector<AttendAnswer> answers(items.size());
  std::vector<PreparedQuery> queries;
  std::vector<AttendAnswer*> filled;
  size_t answer_bytes = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    auto prepared = Prepare(items[i]);
    answers[i].boot_id = boot_id_;
    answers[i].status = prepared.status();
    if (!prepared.ok()) continue;
    const Fingerprint& fingerprint = prepared->session->fingerprint();
    // Beside the output: log-sum-exp, coverage and estimated error.
    answer_bytes += sizeof(float) * fingerprint.q_heads * (size_t{fingerprint.value_dim} + 3);
    queries.push_back(*std::move(prepared));
    filled.push_back(&answers[i]);
  }
  if (answer_bytes > limits_.message_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("items: an answer of ", answer_bytes,
                     " bytes is over the limit message_bytes_max of ", limits_.message_bytes_max));
  }
  executor_.Attend(queries, deadline, filled);
  return answers;
}

absl::StatusOr<SearchAnswer> StoreQueries::Search(const SearchRequest& request,
                                                  absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const PreparedQuery query, Prepare({.session_id = request.session_id,
                                                             .layer = request.layer,
                                                             .range = request.range,
                                                             .mode = request.mode,
                                                             .selection = request.selection,
                                                             .queries = request.queries}));
  ATTIC_RETURN_IF_ERROR(ValidateSearch(request, query.session->fingerprint(), limits_));
  if (absl::Now() >= deadline) return absl::DeadlineExceededError("search: deadline passed");
  return executor_.Search(query, request.k, request.with_vectors);
}

}  // namespace attic
