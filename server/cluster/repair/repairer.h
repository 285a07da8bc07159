// A node fills itself from its peers.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_REPAIRER_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_REPAIRER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/membership.h"
#include "server/cluster/repair/repair_pass.h"
#include "server/cluster/repair/shard_changes.h"

namespace attic {

// Compares what the node holds with what it should hold, when the cluster map changes, and now and
// then, and one shard when a gap of it is reported; pulls what is missing, truncates what differs,
// closes what was closed while the node was away, drops what others hold, and says in
// Membership::Report what is filled. See RepairPass, SlotRole and ShardRepair for what is done
// when.
//
// The truth of a shard is what live replicas hold. Where no replica is live, because all were
// started again, the longest shard wins; where blocks differ, the replica of lowest rank; nobody
// closes anything. A live node truncates nothing because another has less. Live replicas that
// differ are an error in progress(): the lowest rank is the truth, and the others, once the
// difference has lasted, and if that replica holds as much as they do, take its rows.
//
// Threads: one that looks, one that waits for maps, and options.parallel_pulls - 1 that help.
class Repairer {
 public:
  // Begins at once. All arguments outlive it. options.wait_until is ignored.
  Repairer(Membership& membership, ShardHolder& holder, ShardChanges& changes,
           ShardPeerFactory make_peer, RepairOptions options);
  // Ends what it is doing: within a second, or the deadline of a call that is under way.
  ~Repairer();
  Repairer(const Repairer&) = delete;
  Repairer& operator=(const Repairer&) = delete;

  // An append or a read found that a shard is missing here, lags, or holds something else
  // (NOT_FOUND, OUT_OF_RANGE, FAILED_PRECONDITION, ALREADY_EXISTS). Returns at once. Thread-safe.
  void NotifyGap(const std::string& session_id);

  // Thread-safe.
  RepairProgress progress() const { return pass_.progress(); }

 private:
  void Watch();
  void Run();
  enum class Work : uint8_t { kPass, kGaps, kEnd };
  // Waits until there is something to do; adds the gaps that were reported to `gaps`.
  Work WaitForWork(std::set<std::string>& gaps);
  // What is left of `gaps` is to be looked at again.
  void RunPass(const ClusterMapPtr& map, std::set<std::string>& gaps);
  void RunGaps(const ClusterMapPtr& map, std::set<std::string>& gaps);
  GapResult FillGaps(const ClusterMapPtr& map, std::set<std::string>& gaps);
  bool Abandoned(const ClusterMap& map);
  void TakeGaps(std::set<std::string>& gaps) ATTIC_REQUIRES(mutex_);
  void Report(const SyncReport& report);
  bool WaitUntil(absl::Time time);

  Membership& membership_;
  const RepairOptions options_;
  RepairPass pass_;

  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  uint64_t known_epoch_ ATTIC_GUARDED_BY(mutex_) = 0;  // of the newest map
  bool was_down_ ATTIC_GUARDED_BY(mutex_) = false;     // in a map since the last pass
  uint64_t begun_epoch_ ATTIC_GUARDED_BY(mutex_) = 0;  // of the last pass
  absl::Time look_at_ ATTIC_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time gaps_after_ ATTIC_GUARDED_BY(mutex_) = absl::InfinitePast();
  // When to look again at those that Run knows.
  absl::Time gaps_again_ ATTIC_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::set<std::string> gaps_ ATTIC_GUARDED_BY(mutex_);
  SyncReport reported_;  // used by Run alone: the last
  std::thread watcher_;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_REPAIRER_H_
