// Makes one shard what other replicas hold.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_SHARD_REPAIR_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_SHARD_REPAIR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/cluster/repair/shard_changes.h"
#include "server/cluster/repair/shard_holder.h"
#include "server/cluster/repair/shard_peer.h"
#include "server/cluster/repair/throttle.h"

namespace attic {

struct ShardRepairOptions {
  int64_t block_tokens = kDigestBlockTokens;
  absl::Duration call_timeout = absl::Seconds(20);
  // An import and its peer have something to say at least so often.
  absl::Duration idle_timeout = absl::Seconds(20);
  // Comparisons of one shard, before it is left for later: it keeps changing, or what comes of it
  // is not what the peer says.
  size_t rounds_max = 16;
  std::function<absl::Time()> clock;  // of deadlines
};

// What came of repairs. Thread-safe.
struct PullCounts {
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> shards{0};
  std::atomic<uint64_t> dropped{0};
  std::atomic<uint64_t> failed{0};  // repairs of a shard
};

struct ShardSource {
  std::shared_ptr<ShardPeer> peer;
  uint32_t rank = 0;
  bool live = true;
};

struct ShardFill {
  HeldShard shard;                   // as the node holds it, or, if it does not, as a source does
  std::vector<ShardSource> sources;  // in order of rank
  bool held = false;                 // by this node
  uint32_t own_rank = 0;
  // This node is not live: what differs from a live source is replaced. Otherwise only what
  // differs from one of lower rank is, and only with `settle_conflicts`.
  bool away = false;
  bool settle_conflicts = false;
  // This node, which is away, held rows up to here that no live source did: they were truncated
  // there, or never acknowledged by all. If that is still so, with `cut_surplus` they and what
  // follows them are truncated.
  int64_t surplus_end = 0;
  bool cut_surplus = false;
};

struct ShardOutcome {
  // OK: what the node holds is what the sources hold, up to their watermarks when they were
  // compared, or the shard was closed. ABORTED: it changes; look again.
  absl::Status status;
  bool conflict = false;  // between live replicas, left as it is
  bool surplus = false;   // there were rows to truncate, but no `cut_surplus`
  bool imported = false;
  bool pulled = false;  // anything
};

// A shard that is not held is imported as a snapshot, with its index; where the source's is of
// other options than this node's, it is opened without rows, and they are pulled. It is seen while
// they come: by readers who do not say how much they need, too, but such read only from nodes that
// are live, where this is a gap.
//
// Thread-safe; a shard must be repaired by one thread at a time. The arguments outlive it.
class ShardRepair {
 public:
  ShardRepair(ShardHolder& holder, ShardChanges& changes, Throttle& throttle, PullCounts& counts,
              ShardRepairOptions options);

  ShardOutcome Fill(const ShardFill& fill);

  // Closes the shard when none of `owners` holds it; FAILED_PRECONDITION otherwise.
  absl::Status Close(const HeldShard& shard, const std::vector<std::shared_ptr<ShardPeer>>& owners);

  // Closes the shard when every owner holds at least as much and all whole blocks are equal, and so
  // is what follows them where watermarks are equal; FAILED_PRECONDITION otherwise.
  absl::Status Drop(const HeldShard& shard, const std::vector<std::shared_ptr<ShardPeer>>& owners);

 private:
  // How far a comparison with one source has come.
  enum class Round : uint8_t {
    kEqual = 1,    // nothing is missing here
    kChanged = 2,  // something was pulled or truncated: compare again
    kSkipped = 3,  // the source no longer holds the shard
  };
  struct State;

  absl::Status Import(State& state);
  absl::Status ImportFrom(State& state, ShardPeer& peer);
  absl::StatusOr<Round> Align(State& state, const ShardSource& source);
  absl::StatusOr<Round> Pull(State& state, const ShardSource& source, const RowsDigest& own,
                             const RowsDigest& theirs);
  absl::StatusOr<Round> Replace(State& state, const ShardSource& source, int64_t position,
                                const RowsDigest& own, const RowsDigest& theirs);
  absl::StatusOr<Round> Compare(State& state);
  absl::StatusOr<Round> CutSurplus(State& state);
  absl::Status Truncate(State& state, int64_t position);
  absl::Status CloseHere(ShardChanges::Watch& watch, const std::string& session_id);
  absl::Time Deadline() const { return options_.clock() + options_.call_timeout; }

  ShardHolder& holder_;
  ShardChanges& changes_;
  Throttle& throttle_;
  PullCounts& counts_;
  const ShardRepairOptions options_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_SHARD_REPAIR_H_
