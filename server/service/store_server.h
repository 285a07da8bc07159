// A store on the network: a SessionStore behind gRPC, with health checks and server reflection.
#ifndef ATTIC_SERVER_SERVICE_STORE_SERVER_H_
#define ATTIC_SERVER_SERVICE_STORE_SERVER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/cluster_options.h"
#include "server/session/session_store.h"

namespace attic {

struct StoreServerOptions {
  std::string listen_address = "127.0.0.1:7400";  // host:port; port 0: chosen; or unix:PATH
  // Without transport security a server listens on loopback only, unless this says otherwise.
  bool allow_insecure_remote = false;
  size_t append_threads = 2;  // for appends and session calls
  SessionStoreOptions store;  // node_of_cluster follows from `cluster`
  ClusterOptions cluster;
};

// Thread-safe.
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
  // A store that is no node of a cluster always is. A node is when the cluster map it knows calls
  // it live; health checks of the service "ready" say the same.
  virtual bool ready() const = 0;

  // Leaves the cluster, for which it may take half of the time that is left. Then says NOT_SERVING
  // to health checks, ends streams after their requests are answered, refuses new calls, and waits
  // for those running; whatever runs at `deadline` is cancelled. Returns when nothing is served any
  // more. Calls after the first do nothing.
  virtual void Drain(absl::Time deadline) = 0;
};

// True for 127.x.y.z, [::1], localhost and unix: addresses.
bool IsLoopbackAddress(const std::string& listen_address);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_STORE_SERVER_H_
