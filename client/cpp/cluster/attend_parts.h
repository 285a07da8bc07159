// An attend or search taken apart into questions to shards, and their answers put together: pure
// functions.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_ATTEND_PARTS_H_
#define ATTIC_CLIENT_CPP_CLUSTER_ATTEND_PARTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "api/shard.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_routes.h"

namespace attic {

// One shard's share of an item.
struct AttendPart {
  ShardId shard;
  int64_t block_begin = 0;
  AttendItem item;  // to the shard; borrows the whole item's queries
};

// What a store would answer to an item over no more than `watermark` positions, none of whose
// fields depends on how the session is cut.
absl::Status CheckAttend(const SessionInfo& info, const AttendItem& item);

// The positions an item is answered for when all of its heads are held up to `watermark`.
PositionRange ClampRange(const PositionRange& range, int64_t watermark);

// Parts in order of kv head, then of block. `range` is the item's, clamped: every part states the
// watermark that its own stretch needs, and the item's, so that no replica answers for less.
std::vector<AttendPart> SplitItem(const SessionInfo& info, const AttendItem& item,
                                  const PositionRange& range);

// INTERNAL when a shard's answer has the wrong shape, or is over other positions than were asked
// for.
absl::Status CheckPartAnswer(const SessionInfo& info, const AttendPart& part,
                             const AttendAnswer& answer);

// The item's answer from those of all parts, checked, in the same order. Heads come from their kv
// head's parts; blocks merge as partial attentions do. With shares w_i of the mass, the coverage is
// sum w_i c_i, and the estimated error, an upper bound by the triangle inequality,
// sum w_i |o_i| e_i / |o|. Costs add up; the epoch is the smallest, the boot id that of the first
// part.
AttendAnswer MergeAnswers(const SessionInfo& info, std::span<const AttendPart> parts,
                          std::span<const AttendAnswer> answers, const PositionRange& range);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_ATTEND_PARTS_H_
