// Attention over sessions whose heads lie on many nodes.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_ATTEND_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_ATTEND_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"

namespace attic {

// See Client::Attend. Every shard is asked at the live replica that is likely to answer first; all
// that a node is asked is one message, and nodes work in parallel. What fails is asked of another
// replica, until the deadline. What takes longer than the p95 of the node is asked twice, the first
// answer counts.
//
// An item's heads all answer for the same positions: an end beyond what is known to be held is
// replaced by that, once for all of them, and every shard must hold it. Known is what this client's
// own appends were acknowledged up to, else what live replicas say, looked up again when older than
// 100 ms. Whoever reads what another process appended a moment ago states min_watermark.
//
// An item is answered by all of its shards or by an error, never by some.
absl::StatusOr<std::vector<AttendAnswer>> ClusterAttend(ClusterCore& core,
                                                        ClusterSessions& sessions,
                                                        std::span<const AttendItem> items,
                                                        absl::Time deadline);

// The positions that an item is answered for; see above.
absl::StatusOr<PositionRange> ResolveRange(ClusterCore& core, ClusterSessions& sessions,
                                           const SessionInfo& info, const AttendItem& item,
                                           absl::Time deadline);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_ATTEND_H_
