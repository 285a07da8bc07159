// The part of a store server that a cluster needs: the gate, and the services by which nodes and
// cluster clients speak to it.
#ifndef ATTIC_SERVER_SERVICE_NODE_SERVICES_H_
#define ATTIC_SERVER_SERVICE_NODE_SERVICES_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "server/cluster/cluster_options.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/service/cluster_service.h"
#include "server/service/executor.h"
#include "server/service/node_activity.h"
#include "server/service/shard_service.h"
#include "server/service/stream_registry.h"
#include "server/session/session_store.h"

namespace attic {

// Also in a store that is no node: there its services answer FAILED_PRECONDITION, and its gate lets
// everything pass. Thread-safe but for Join.
class NodeServices {
 public:
  // Borrows store, streams and metrics, in which it records calls.
  NodeServices(const ClusterOptions& options, SessionStore& store, StreamRegistry& streams,
               CallMetrics& metrics, std::string boot_id, const Limits& limits);
  // No call of the services is running any more.
  ~NodeServices();

  SlotGate& gate() { return gate_; }
  // Runs what moves whole sessions and shards, at the priority of background work.
  Executor& transfer_executor() { return transfer_executor_; }
  void Register(grpc::ServerBuilder& builder);

  // Becomes a node, if the options say so. ready_changed(ready) is called with the first state
  // before this returns, and whenever it changes by a thread of this object, until Leave is called.
  // A node is ready while the map it knows calls it live. Errors of what the options call.
  absl::Status Join(const std::string& bound_address, std::function<void(bool)> ready_changed);
  // Tells the cluster that the node goes away; returns at `deadline` at the latest. Nothing to do
  // if it never joined; calls after the first do nothing.
  void Leave(absl::Time deadline);

  // Nothing in a store that is no node. Does not wait.
  std::optional<NodeActivity> Activity();

 private:
  void WatchReadiness(bool told, const std::function<void(bool)>& ready_changed);
  RepairProgress Progress() const;

  const ClusterOptions options_;
  SessionStore& store_;
  const std::string boot_id_;
  SlotGate gate_;
  Executor call_executor_;
  Executor transfer_executor_;
  ShardServiceImpl shard_service_;
  ClusterServiceImpl cluster_service_;
  std::shared_ptr<Membership> membership_;
  std::unique_ptr<NodeRepair> repair_;
  std::atomic<bool> leaving_{false};
  std::thread watcher_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_NODE_SERVICES_H_
