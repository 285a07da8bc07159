// Appends to the shards of a cluster: every batch taken apart by heads and sent to all replicas,
// one stream to each node.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_APPEND_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_APPEND_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/append_window.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"

namespace attic {

// See AppendStream. A batch is kept until the session's policy acknowledged it and every replica
// that is there has it, or lags behind anyway; then repair fills the replica. Meanwhile it is sent
// again, to whoever the newest map names, after a stream broke or a node refused it for a map that
// is not its own; nodes know repeats by their positions. The stream ends with an error only when
// nothing was acknowledged for call_timeout, or no replica can ever take what is sent.
class ClusterAppendStream final : public AppendStream {
 public:
  explicit ClusterAppendStream(std::shared_ptr<ClusterCore> core);
  ~ClusterAppendStream() override;

  absl::Status Append(const AppendBatch& batch) override;
  absl::StatusOr<AppendAck> Flush(absl::Time deadline) override;

 private:
  // What was sent on a stream and is not answered.
  struct Sent {
    std::shared_ptr<ShardWrite> write;
    std::string lane;
  };
  struct NodeStream {
    std::string node_id;
    std::shared_ptr<PooledNode> node;
    std::unique_ptr<LinkAppends> appends;  // of whoever pumps
    std::deque<Sent> sent;
    size_t bytes_sent = 0;
    bool broken = false;
  };
  struct Connection {
    std::shared_ptr<NodeStream> stream;  // null: to be opened
    absl::Time open_after = absl::InfinitePast();
    absl::Duration backoff;
  };
  // A thread of a link may not be the one to let go of a link.
  enum class Caller : uint8_t { kClient, kLink };
  struct Outgoing {
    std::shared_ptr<NodeStream> stream;
    v1::AppendRequest request;
  };

  absl::StatusOr<WriteBatch> MakeBatch(const AppendBatch& batch);
  absl::Status WaitForRoom(size_t bytes) ATTIC_REQUIRES(mutex_);

  // Sends what is to be sent. One thread at a time does so, with no lock held; others that come
  // leave the work to it.
  void Pump(Caller caller) ATTIC_EXCLUDES(mutex_);
  std::vector<Outgoing> Plan() ATTIC_REQUIRES(mutex_);
  void PlanLane(const std::string& id, ShardLane& lane, std::vector<Outgoing>& out)
      ATTIC_REQUIRES(mutex_);
  void PlanNode(const std::string& id, ShardLane& lane, uint32_t node, std::vector<Outgoing>& out)
      ATTIC_REQUIRES(mutex_);
  // Null while the node is not to be connected to.
  std::shared_ptr<NodeStream> StreamTo(uint32_t node) ATTIC_REQUIRES(mutex_);
  void Send(std::vector<Outgoing> out);

  void OnResponse(NodeStream& stream, const v1::AppendResponse& response) ATTIC_EXCLUDES(mutex_);
  void OnFinished(NodeStream& stream, const absl::Status& status) ATTIC_EXCLUDES(mutex_);
  void TakeAnswer(NodeStream& stream, const Sent& sent, const v1::AppendResponse& response)
      ATTIC_REQUIRES(mutex_);
  void TakeRefusal(const std::string& node_id, const Sent& sent, const absl::Status& refusal)
      ATTIC_REQUIRES(mutex_);

  // Acknowledged, and cut off since, perhaps: slow replicas are not to get it any more.
  bool IsPast(const ShardWrite& write) const;
  // Acknowledges what the policy is met for, and lets go of what is done with.
  void Settle() ATTIC_REQUIRES(mutex_);
  bool IsFinished(const WriteBatch& batch, absl::Time now) ATTIC_REQUIRES(mutex_);
  void Fail(const absl::Status& status) ATTIC_REQUIRES(mutex_);
  bool Tick() ATTIC_EXCLUDES(mutex_);

  const std::shared_ptr<ClusterCore> core_;
  ClusterSessions sessions_;
  uint64_t tick_ = 0;

  Mutex mutex_;
  CondVar changed_;
  absl::Status error_ ATTIC_GUARDED_BY(mutex_);         // the first
  absl::Status last_trouble_ ATTIC_GUARDED_BY(mutex_);  // why something is waiting
  std::shared_ptr<const ClusterMap> map_ ATTIC_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<WriteBatch>> batches_ ATTIC_GUARDED_BY(mutex_);
  size_t acknowledged_ ATTIC_GUARDED_BY(mutex_) = 0;  // of batches_, from the first
  size_t bytes_in_flight_ ATTIC_GUARDED_BY(mutex_) = 0;
  AppendAck last_ack_ ATTIC_GUARDED_BY(mutex_);
  absl::Time last_progress_ ATTIC_GUARDED_BY(mutex_);
  std::map<std::string, ShardLane> lanes_ ATTIC_GUARDED_BY(mutex_);   // by the shard's id
  std::set<std::string> ready_ ATTIC_GUARDED_BY(mutex_);              // lanes to be looked at
  std::map<std::string, Connection> nodes_ ATTIC_GUARDED_BY(mutex_);  // by node id
  std::vector<std::shared_ptr<NodeStream>> ended_ ATTIC_GUARDED_BY(mutex_);
  bool pumping_ ATTIC_GUARDED_BY(mutex_) = false;
  bool closing_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_APPEND_H_
