// Conversions between the plain types of api/ and the protocol buffers of proto/attic/v1, used by
// the store's handlers and the client library.
//
// ToWire never fails. FromWire checks what the wire format alone can get wrong (unknown enum
// values, byte counts that do not fit) and returns INVALID_ARGUMENT naming the field; limits and
// meaning are checked by server/session. Borrowing results refer to the message they were made
// from.
#ifndef ATTIC_WIRE_CONVERT_H_
#define ATTIC_WIRE_CONVERT_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"
#include "attic/v1/admin.pb.h"
#include "attic/v1/attention.pb.h"
#include "attic/v1/common.pb.h"
#include "attic/v1/session.pb.h"
#include "attic/v1/snapshot.pb.h"

namespace attic::wire {

// Status codes of Abseil and of gRPC have the same numbers; messages are kept.
v1::Error ToWire(const absl::Status& status);
absl::Status FromWire(const v1::Error& error);

v1::Fingerprint ToWire(const Fingerprint& fingerprint);
absl::StatusOr<Fingerprint> FromWire(const v1::Fingerprint& fingerprint);

// Of a request: "up to the watermark" travels as end = 0, and the empty range [0, 0) as [1, 1).
// The range of an answer travels as it is.
v1::PositionRange ToWire(const PositionRange& range);
PositionRange FromWire(const v1::PositionRange& range);

v1::ReadStatistics ToWire(const ReadStatistics& read);
ReadStatistics FromWire(const v1::ReadStatistics& read);

v1::Durability ToWire(Durability durability);

// Whole hashes only.
std::string ToWire(std::span<const PrefixHash> hashes);
absl::StatusOr<std::vector<PrefixHash>> PrefixHashesFromWire(const std::string& bytes);

v1::Replication ToWire(const Replication& replication);
absl::StatusOr<Replication> FromWire(const v1::Replication& replication);
v1::Placement ToWire(const Placement& placement);
absl::StatusOr<Placement> FromWire(const v1::Placement& placement);

v1::ForkRequest ToWire(const std::string& session_id, const ForkOptions& options);
absl::StatusOr<ForkOptions> FromWire(const v1::ForkRequest& request);

v1::OpenRequest ToWire(const OpenSessionRequest& request);
absl::StatusOr<OpenSessionRequest> FromWire(const v1::OpenRequest& request);

// What the message that begins an export says, but for the session.
void ToWire(const ExportOptions& options, v1::ExportRequest& request);
ExportOptions FromWire(const v1::ExportRequest& request);

// What the first chunk of an import says.
void ToWire(const ImportOptions& options, v1::SnapshotChunk& chunk);
absl::StatusOr<ImportOptions> FromWire(const v1::SnapshotChunk& chunk);

v1::SessionDescription ToWire(const SessionDescription& description);
v1::HeadPlan ToWire(const HeadPlan& plan);
HeadPlan FromWire(const v1::HeadPlan& plan);
absl::StatusOr<SessionDescription> FromWire(const v1::SessionDescription& description);

v1::AppendRequest ToWire(const AppendBatch& batch);

// An AppendBatch that borrows keys and values from `request`; the query sample is copied into
// `query_sample` because float data in a message may be unaligned.
absl::StatusOr<AppendBatch> FromWire(const v1::AppendRequest& request,
                                     std::vector<float>& query_sample);

// The default policy travels as a message without a goal. Counts travel as uint32: a larger one as
// the largest, what is no count at all as 0, which ValidateSelection refuses like the amount
// itself. A goal of a later version is refused here, for it would read as the default.
v1::SelectionPolicy ToWire(const SelectionPolicy& selection);
absl::StatusOr<SelectionPolicy> FromWire(const v1::SelectionPolicy& selection);

v1::AttendItem ToWire(const AttendItem& item);

// An AttendItem whose queries, widened to float32, are in `queries`.
absl::StatusOr<AttendItem> FromWire(const v1::AttendItem& item, uint32_t layer,
                                    std::vector<float>& queries);

v1::AttendItemResponse ToWire(const AttendAnswer& answer);
absl::StatusOr<AttendAnswer> FromWire(const v1::AttendItemResponse& response);

v1::SearchRequest ToWire(const SearchRequest& request);
absl::StatusOr<SearchRequest> FromWire(const v1::SearchRequest& request,
                                       std::vector<float>& queries);
v1::SearchResponse ToWire(const SearchAnswer& answer);
absl::StatusOr<SearchAnswer> FromWire(const v1::SearchResponse& response);

v1::StoreStatus ToWire(const StoreStatus& status);
StoreStatus FromWire(const v1::StoreStatus& status);

}  // namespace attic::wire

#endif  // ATTIC_WIRE_CONVERT_H_
