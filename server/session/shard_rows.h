// Reading back what a session holds, row by row: digests to compare replicas by, and the rows
// themselves.
#ifndef ATTIC_SERVER_SESSION_SHARD_ROWS_H_
#define ATTIC_SERVER_SESSION_SHARD_ROWS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/session/catalogue.h"
#include "server/session/session.h"
#include "server/session/shard_view.h"

namespace attic {

// What a reader holds in memory at most: a block of kDigestBlockTokens rows. Enough for every
// shard that the limits permit.
inline constexpr size_t kRowsBlockBytesMax = 64u << 20;

// Those with a placement in one of `slots` (in order; empty: any), with ids after
// `after_session_id`, in order of id, at most `page_size`.
std::vector<PlacedSession> ListPlaced(const Catalogue& catalogue,
                                      const std::string& after_session_id, size_t page_size,
                                      std::span<const uint32_t> slots);

// Both work on what the session holds when they are called, and hold no lock while they read.
// FAILED_PRECONDITION for a session of several layers that holds any rows; UNAVAILABLE while the
// session is read from disk or when its disk failed; RESOURCE_EXHAUSTED when a block is larger than
// kRowsBlockBytesMax. Errors of HeadSnapshot::CopyRange.

// DEADLINE_EXCEEDED. Reads what came since it was asked last, and the rows that follow the last
// whole block.
absl::StatusOr<RowsDigest> DigestRows(const Session& session, absl::Time deadline);

// Positions [begin, end). INVALID_ARGUMENT for what is no range, OUT_OF_RANGE beyond the watermark.
// `held` lives as long as the source.
absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::shared_ptr<Session>& session,
                                                     int64_t begin, int64_t end,
                                                     std::shared_ptr<void> held);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SHARD_ROWS_H_
