// A store on the network: a SessionStore behind gRPC, with health checks and server reflection.
#ifndef ATTIC_SERVER_SERVICE_STORE_SERVER_H_
#define ATTIC_SERVER_SERVICE_STORE_SERVER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/cluster_options.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"
#include "server/service/node_activity.h"
#include "server/session/session_store.h"

namespace attic {

struct StoreServerOptions {
  std::string listen_address = "127.0.0.1:7400";  // host:port; port 0: chosen; or unix:PATH
  // Without transport security a server listens on loopback only, unless this says otherwise.
  bool allow_insecure_remote = false;
  // Health checks alone, in plain text, on an address that any machine may reach, since they tell
  // nothing else; empty: none. They are answered at listen_address, too.
  std::string health_listen_address;
  // For traffic as soon as it serves; otherwise SetReady says when. Without effect on a node.
  bool ready = true;
  size_t append_threads = 2;  // for appends and session calls
  SessionStoreOptions store;  // node_of_cluster follows from `cluster`
  ClusterOptions cluster;
};

// What a server is doing.
struct ServerActivity {
  bool ready = false;     // as health checks are told
  bool draining = false;  // from Drain on
  size_t streams = 0;     // open ones
  Executor::Load queries;
  Executor::Load appends;  // and session calls
};

// Health checks know two names: the empty one says SERVING until Drain, kReadyService while the
// server is ready for traffic as well. Thread-safe.
class StoreServer {
 public:
  // Serves when it returns, while sessions are still read from the data directory. INVALID_ARGUMENT
  // for an address that is not allowed, UNAVAILABLE when it cannot be bound; errors of
  // SessionStore::Open and of what options.cluster calls.
  static absl::StatusOr<std::unique_ptr<StoreServer>> Start(const StoreServerOptions& options);
  // Drains without patience.
  virtual ~StoreServer() = default;

  // Where clients connect to, with the port really bound.
  virtual const std::string& address() const = 0;
  virtual const std::string& boot_id() const = 0;
  virtual SessionStore& store() = 0;
  virtual const std::string& health_address() const = 0;  // as address(); empty: none
  virtual const CallMetrics& calls() const = 0;           // since the start
  virtual ServerActivity Activity() = 0;
  // As a node of a cluster; nothing of a store that is none.
  virtual std::optional<NodeActivity> AsNode() = 0;

  // Whether the server is ready for traffic. Of a node the cluster map says so: it is while the map
  // that it knows calls it live, and every change of that counts in place of what was set here.
  // Without effect after Drain.
  virtual void SetReady(bool ready) = 0;

  // Leaves the cluster, for which it may take half of the time that is left. Then says NOT_SERVING
  // to health checks of either name, ends streams after their requests are answered, refuses new
  // calls, and waits for those running; whatever runs at `deadline` is cancelled. Returns when
  // nothing but health checks at health_address() is served any more. Calls after the first do
  // nothing.
  virtual void Drain(absl::Time deadline) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_STORE_SERVER_H_
