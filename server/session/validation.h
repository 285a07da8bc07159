// Checks of everything a caller may get wrong. Each returns INVALID_ARGUMENT naming the field,
// RESOURCE_EXHAUSTED naming the limit, or FAILED_PRECONDITION naming what differs. Pure functions.
#ifndef ATTIC_SERVER_SESSION_VALIDATION_H_
#define ATTIC_SERVER_SESSION_VALIDATION_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "api/limits.h"
#include "api/types.h"

namespace attic {

// A session id that is not empty: its length and its characters (letters, digits, . _ - : /). Of a
// shard's id (api/shard.h) the same of its session's.
absl::Status ValidateSessionId(const std::string& session_id, const char* field,
                               const Limits& limits);

// Id (empty is allowed), fingerprint and stored layers.
absl::Status ValidateOpen(const OpenSessionRequest& request, const Limits& limits);

// Counts and the key; not whether the slot is one of this cluster's.
absl::Status ValidatePlacement(const Placement& placement, const Limits& limits);

// `blocks` hashes from the first_block'th on.
absl::Status ValidatePrefix(size_t first_block, size_t blocks, const Limits& limits);

// FAILED_PRECONDITION naming the first field that differs.
absl::Status CompareFingerprints(const Fingerprint& held, const Fingerprint& requested);

// Counts, byte lengths and limits; does not read the arrays.
absl::Status ValidateAppendShape(const AppendBatch& batch, const Fingerprint& fingerprint,
                                 const Limits& limits);

// Every element of the arrays is finite. The shape has been checked.
absl::Status ValidateAppendContent(const AppendBatch& batch, const Fingerprint& fingerprint);

// (q_heads, head_dim) finite numbers.
absl::Status ValidateQueries(std::span<const float> queries, const Fingerprint& fingerprint);

// 0 <= begin <= end.
absl::Status ValidateRange(const PositionRange& range);

// k, that the answer fits limits.message_bytes_max, and that the selection, which is valid, is not
// about an output.
absl::Status ValidateSearch(const SearchRequest& request, const Fingerprint& fingerprint,
                            const Limits& limits);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_VALIDATION_H_
