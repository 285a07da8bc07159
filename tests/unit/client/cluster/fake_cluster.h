// A cluster in this process: nodes are session stores, and a test decides which of them answer,
// when, and by which map.
#ifndef ATTIC_TESTS_UNIT_CLIENT_CLUSTER_FAKE_CLUSTER_H_
#define ATTIC_TESTS_UNIT_CLIENT_CLUSTER_FAKE_CLUSTER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "api/cluster_map.h"
#include "base/mutex.h"
#include "base/thread_pool.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/node_link.h"
#include "server/session/session_store.h"

namespace attic {

class FakeAppends;

// Where all nodes find the newest map. Thread-safe.
class SharedMap {
 public:
  void Set(ClusterMap map) {
    MutexLock lock(mutex_);
    map_ = std::make_shared<const ClusterMap>(std::move(map));
  }
  std::shared_ptr<const ClusterMap> Get() const {
    MutexLock lock(mutex_);
    return map_;
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const ClusterMap> map_ ATTIC_GUARDED_BY(mutex_);
};

// Thread-safe.
class FakeNode {
 public:
  FakeNode(std::string id, const SessionStoreOptions& options, const SharedMap& map);
  ~FakeNode();

  // Its store is gone, streams break, calls fail with UNAVAILABLE until Restart.
  void Kill();
  void Restart();
  // Nothing is answered until Resume.
  void Pause();
  void Resume();
  // Goes on by the map it knows now until Thaw.
  void FreezeMap();
  void Thaw();
  // Streams break; the store is as it was.
  void BreakStreams();

  std::shared_ptr<SessionStore> store() const;
  std::unique_ptr<NodeLink> Link();
  std::atomic<int> attends = 0;  // messages answered
  std::atomic<int> appends = 0;
  // The node is killed when so many further chunks of snapshots have passed; negative: it is not.
  std::atomic<int> chunks_to_live = -1;
  // Knows nothing of where exports end, and of placements that imports are given.
  std::atomic<bool> old_release = false;

 private:
  friend class FakeLink;
  friend class FakeAppends;
  friend class FakeImport;

  // A chunk of a snapshot comes or goes; false when the node is dead.
  bool PassChunk();
  // Runs the task on a thread of the node's, later when it is paused.
  void Schedule(std::function<void()> task);
  bool dead() const;
  std::shared_ptr<const ClusterMap> map() const;
  // ABORTED or UNAVAILABLE when a write by this epoch is not to be taken; slot: -1 for any.
  absl::Status CheckEpoch(uint64_t epoch, int64_t slot) const;
  // What is said of a session that is not there: UNAVAILABLE while the node is being filled.
  absl::Status Missing(const absl::Status& status) const;
  absl::StatusOr<v1::ShardResults> Answer(const v1::ShardCalls& calls);
  absl::StatusOr<v1::AttendResponse> Answer(const v1::AttendRequest& request);
  v1::AppendResponse Answer(const v1::AppendRequest& request);

  const std::string id_;
  const SessionStoreOptions options_;
  const SharedMap& shared_map_;
  mutable Mutex mutex_;
  std::shared_ptr<SessionStore> store_ ATTIC_GUARDED_BY(mutex_);  // null when dead
  std::shared_ptr<const ClusterMap> frozen_ ATTIC_GUARDED_BY(mutex_);
  bool paused_ ATTIC_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> held_ ATTIC_GUARDED_BY(mutex_);
  std::set<FakeAppends*> streams_ ATTIC_GUARDED_BY(mutex_);
  ThreadPool pool_{2};
};

class FakeCluster {
 public:
  // Nodes "n0", "n1", ...; every slot has `replicas` of them, in turn, in random order.
  FakeCluster(size_t nodes, uint32_t replicas, uint64_t seed, const SessionStoreOptions& options,
              size_t slots = 64);

  FakeNode& node(size_t index) { return *nodes_[index]; }
  size_t size() const { return nodes_.size(); }
  // The map of the next epoch after `change`. Slots whose nodes change get the new epoch, and those
  // of nodes that are not down any more.
  void ChangeMap(const std::function<void(ClusterMap&)>& change);
  void SetState(size_t node, NodeState state);
  std::shared_ptr<const ClusterMap> map() const { return map_.Get(); }
  std::unique_ptr<Client> Connect(ClientOptions options = {});
  // What repair does: all that a node should hold, as the live replica that holds most has it.
  void Repair(size_t node);

 private:
  SharedMap map_;
  std::vector<std::unique_ptr<FakeNode>> nodes_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLIENT_CLUSTER_FAKE_CLUSTER_H_
