// The description of a session from those of its shards.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_DESCRIPTION_MERGE_H_
#define ATTIC_CLIENT_CPP_CLUSTER_DESCRIPTION_MERGE_H_

#include <span>

#include "api/shard.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_routes.h"

namespace attic {

struct ShardDescription {
  ShardId shard;
  SessionDescription description;  // of the replica that holds most
};

// Identity, lease and placement are the manifest's; watermarks the smallest over heads, bytes the
// sum over shards of one replica each, `reused_tokens` the smallest over shards. Of a session cut
// into blocks, what lies behind a gap is not counted.
SessionDescription MergeDescriptions(const SessionInfo& info, const SessionDescription& manifest,
                                     std::span<const ShardDescription> shards);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_DESCRIPTION_MERGE_H_
