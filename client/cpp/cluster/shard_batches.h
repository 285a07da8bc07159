// A batch of appends taken apart into what each shard gets of it: a pure function.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_SHARD_BATCHES_H_
#define ATTIC_CLIENT_CPP_CLUSTER_SHARD_BATCHES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "api/limits.h"
#include "api/shard.h"
#include "api/types.h"
#include "attic/v1/attention.pb.h"
#include "client/cpp/cluster/cluster_routes.h"

namespace attic {

struct ShardAppend {
  ShardId shard;
  int64_t block_begin = 0;    // the position in the session that is the shard's 0
  v1::AppendRequest request;  // without epoch
};

// In order of block, then of kv head. The rows of a head are contiguous; it gets the samples of its
// own query heads, with the last of its blocks. INVALID_ARGUMENT or RESOURCE_EXHAUSTED as a store
// answers to a batch of the wrong shape.
absl::StatusOr<std::vector<ShardAppend>> SplitBatch(const SessionInfo& info,
                                                    const AppendBatch& batch, const Limits& limits);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_SHARD_BATCHES_H_
