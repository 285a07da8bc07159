// One look at everything a node should hold, and what came of it.
//
// When a node may call itself filled, as of a map of epoch E:
//
//   1. Peers say what they hold after they know a map of epoch E or later, and have applied what
//      they let in by earlier ones (ShardPeer::Inventory). From then on they refuse writers that do
//      not know of the last change of a slot, and those that do send to this node too. So what a
//      peer holds is what it said, plus what this node is sent as well.
//   2. The node compares each shard with all live replicas: afterwards it holds what they held at
//      that moment, block by block, and what was sent to it since follows without a gap, or was
//      refused as a gap.
//   3. A later pass finds nothing new: every shard that peers list is here, compared, and not
//      shorter than they said. A shard that was refused something is shorter, once the peer has it.
//   4. What callers of the node report as missing while it looks (RepairPass::RunGaps) is here
//      before it calls itself filled; what they report afterwards takes that back.
//
// Twice. Writers wait for a node that is repairing unless it refuses what they send, because it
// lacks what comes before; for one that is incoming they never wait. So when a node calls itself
// filled for the first time, by a map of epoch E, others may have acknowledged something without it
// since its last look: a write refused here as a gap, reported when the controller had acted
// already; one of a session whose opening failed here alone; one to an incoming node that failed on
// its way. The map E' that follows calls the node, or its slot, joining (ClusterNode::joining,
// SlotAssignment::joining): nothing is acknowledged without it from then on. By E' it looks again.
// Peers that answer by E' have applied what they let in by older maps and refuse writers that know
// only those, so that look finds all that was acknowledged without it. When it is here the node
// says so for the second time, and the next map calls it live, or gives it the slot. What it finds
// missing instead makes its slot incoming again. The policies `one` and `quorum` wait for nobody
// but whoever takes over a slot.
//
// So a live replica holds all that was acknowledged by `all`, and the one that takes over a slot
// all that the one it replaces does. What that does not mean:
//
//   * By the policies `one` and `quorum` a replica may always lack what was acknowledged, until the
//     next append is a gap, a reader's min_watermark is not met, or it looks without any reason.
//   * A shard that was closed where no replica was live is held again by those that come back, and
//     is not dropped because its session's manifest is gone. A manifest that nobody holds may have
//     been lost, not closed: those in memory go with the processes that hold them, while shards on
//     other nodes live on, and the caller that opens the session again goes on with them. Nor do
//     all nodes' answers say that it was closed: the ones that held it may have been replaced. Such
//     shards in memory end with their lease, and durable ones when their session is opened and
//     closed once more.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_REPAIR_PASS_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_REPAIR_PASS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "base/mutex.h"
#include "base/thread_pool.h"
#include "server/cluster/membership.h"
#include "server/cluster/repair/shard_changes.h"
#include "server/cluster/repair/shard_holder.h"
#include "server/cluster/repair/shard_peer.h"
#include "server/cluster/repair/shard_repair.h"
#include "server/cluster/repair/slot_role.h"
#include "server/cluster/repair/throttle.h"
#include "server/cluster/repair_progress.h"

namespace attic {

// Shards repaired at a time, by default.
inline constexpr size_t kParallelPulls = 4;
// What one peer may say it holds.
inline constexpr size_t kInventoryShardsMax = 4u << 20;
// Shards that were reported missing and are not looked at yet; more are found by later reports.
inline constexpr size_t kGapsMax = 4096;

struct RepairOptions {
  std::string boot_id;                              // of this process; empty: any is taken for it
  uint64_t bytes_per_second = uint64_t{256} << 20;  // over all pulls; 0: no limit
  size_t parallel_pulls = kParallelPulls;
  size_t shards_per_pass = 256;  // that are compared or filled between two looks at the peers
  absl::Duration retry_pause = absl::Seconds(1);  // after an error, doubled with each further one
  absl::Duration retry_pause_max = absl::Seconds(30);
  absl::Duration interval = absl::Minutes(5);  // between looks without any reason
  // How long what looks closed or truncated must look so before it is closed or truncated here:
  // callers reach one replica a moment after the other.
  absl::Duration settle = absl::Seconds(2);
  // While no other replica of a slot is live, one that is down may hold what nobody else does; so
  // long after its own return a node does not call itself filled without it.
  absl::Duration await_down = absl::Minutes(5);
  ShardRepairOptions shard;
  std::function<absl::Time()> clock = [] { return absl::Now(); };
  // Returns true at the time, or false when waiting has to end. Repairer sets it.
  std::function<bool(absl::Time)> wait_until;
};

struct PassRequest {
  std::shared_ptr<const ClusterMap> map;
  std::set<std::string> gaps;  // shards to be compared whatever their watermarks say
  // There was a map since the last pass in which the node was down: it may have missed changes of
  // what it had compared.
  bool was_down = false;
  // Polled: a newer map is there, or the node stops. Shards under way are finished.
  std::function<bool()> abandoned = [] { return false; };
};

struct PassResult {
  std::optional<SyncReport> report;  // none when the pass was abandoned, or could not begin
  // When to look again: at once when something is known to be left to do.
  absl::Time again_at = absl::InfiniteFuture();
  std::set<std::string> gaps_left;  // to be looked at again
};

struct GapResult {
  std::set<std::string> left;  // to be looked at again, from retry_at on
  absl::Time retry_at = absl::InfiniteFuture();
  // Something was or is missing in a slot that the node is still filling: it is not filled,
  // whatever was said before.
  bool lacked = false;
};

// Keeps what it learnt from one pass to the next. Run and RunGaps are called by one thread at a
// time; progress by any.
class RepairPass {
 public:
  // holder and changes outlive it.
  RepairPass(std::string node_id, ShardHolder& holder, ShardChanges& changes,
             ShardPeerFactory make_peer, RepairOptions options);
  ~RepairPass();

  PassResult Run(const PassRequest& request);

  // Compares and fills only the shards in request.gaps, between two passes by the same map: asks
  // the replicas of each about it alone, or, of a shard whose slot nothing here says, all nodes.
  GapResult RunGaps(const PassRequest& request);

  RepairProgress progress() const;

 private:
  struct Pass;  // what belongs to one Run
  struct Question;
  struct Task;

  // Seen once, and acted upon when it is seen again later.
  struct Doubt {
    absl::Time since;
    absl::Time seen;        // last
    int64_t watermark = 0;  // of this node's shard, when first seen
  };
  struct Failure {
    absl::Time retry_at;
    absl::Duration pause;
  };

  // body(i) for i in [0, count), by all workers.
  void Spread(size_t count, const std::function<void(size_t)>& body);

  // repair_pass.cc
  void FindSelf(Pass& pass);
  absl::Status ListOwn(Pass& pass);
  void NoteAbsence(Pass& pass);
  void FindRoles(Pass& pass);
  PassResult Finish(Pass& pass);
  void Forget(const Pass& pass);

  // pass_peers.cc
  void AskPeers(Pass& pass);
  void AskAll(Pass& pass, std::vector<Question>& questions);
  absl::Status AskPeer(Pass& pass, const Question& question);
  absl::Status AwaitAppends(Pass& pass);
  std::shared_ptr<ShardPeer> PeerOf(const ClusterMap& map, uint32_t node);

  // pass_gaps.cc
  absl::Status DescribeGaps(Pass& pass);
  void AskForGaps(Pass& pass);
  void FindGapRoles(Pass& pass);

  // pass_tasks.cc
  void FindTasks(Pass& pass);
  void FindTask(Pass& pass, const SlotRole& role, uint32_t slot, const std::string& session_id);
  bool NeedsFill(const Pass& pass, const Task& task) const;
  ShardFill FillOf(const Pass& pass, const Task& task) const;
  void RunTasks(Pass& pass);
  void RunTask(const Pass& pass, Task& task);
  void Conclude(Pass& pass, const Task& task);
  void ConcludeFill(Pass& pass, const Task& task);

  // Whether the doubt is there and old enough.
  bool Settled(const Pass& pass, const std::string& doubt) const;
  // Notes the doubt, and that it is to be looked at again when it is old enough.
  void NoteDoubt(Pass& pass, const std::string& doubt, int64_t watermark);
  // The same for rows that no source holds; whether they are to be truncated.
  bool NoteSurplus(Pass& pass, const Task& task);
  // Whether it failed so recently that it has to wait.
  bool HeldBack(Pass& pass, const std::string& key) const;
  void NoteFailure(Pass& pass, const std::string& key, const absl::Status& status);

  const std::string node_id_;
  ShardHolder& holder_;
  ShardChanges& changes_;
  const ShardPeerFactory make_peer_;
  const RepairOptions options_;
  Throttle throttle_;
  PullCounts counts_;
  ShardRepair repair_;
  const std::unique_ptr<ThreadPool> workers_;  // null: one shard at a time

  // Used by Run alone.
  bool away_ = false;  // not live, when last looked
  absl::Time away_since_ = absl::InfinitePast();
  std::set<uint32_t> incoming_;  // slots, when last looked
  // Shards held when the node was first seen to be away, or their slot incoming, and those brought
  // since.
  std::set<std::string> before_;
  // Shards of others that all their replicas were seen to hold: what they no longer hold was
  // closed.
  std::set<std::string> seen_at_owners_;
  std::set<std::string> verified_;           // compared with live replicas since then
  std::map<std::string, Doubt> doubts_;      // by kind and session id
  std::map<std::string, Failure> failures_;  // by kind and session or node id
  std::map<std::string, std::pair<std::string, std::shared_ptr<ShardPeer>>> peers_;
  uint64_t asked_epoch_ = 0;     // of the last map by which all peers were asked
  uint64_t complete_epoch_ = 0;  // the last map as of which everything was held

  mutable Mutex mutex_;
  bool synced_ ATTIC_GUARDED_BY(mutex_) = false;
  uint64_t shards_left_ ATTIC_GUARDED_BY(mutex_) = 0;
  std::string last_error_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_REPAIR_PASS_H_
