// Client of etcd 3.4 and later.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_ETCD_CLIENT_H_
#define ATTIC_SERVER_CLUSTER_ETCD_ETCD_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/etcd/etcd_types.h"

namespace attic {

class EtcdConnection;

// Thread-safe. Every call ends by a deadline, also when etcd hangs with its connections open: an
// attempt at one endpoint takes at most connect_timeout, then call_timeout, and a call tries each
// endpoint at most once. After a failure the connection is made anew, and calls go to the next
// endpoint. Nothing happens between calls.
//
// Reads are linearizable. That is not enough to own something: etcd before 3.4.42 may answer a read
// with old data after its process was paused. Decide by the comparisons of Commit.
//
// Errors of all calls:
//   INVALID_ARGUMENT    the key is empty or over kEtcdKeyBytesMax, or etcd says so
//   RESOURCE_EXHAUSTED  a limit of etcd_types.h, named, or one of etcd's (space, requests)
//   UNAVAILABLE         no connection, or it broke, or etcd has no leader
//   DEADLINE_EXCEEDED   no answer in time
//   UNAUTHENTICATED     the user or the password is wrong
//   PERMISSION_DENIED   the user may not do this
//   INTERNAL            etcd's answer does not make sense
// Reads, keepalives and grants that ended with UNAVAILABLE or DEADLINE_EXCEEDED were tried at every
// endpoint. Put, Delete, Commit and RevokeLease are sent once: after these errors they may have
// been done, or may still be.
class EtcdClient {
 public:
  // Does not wait for etcd. INVALID_ARGUMENT names the option; a file that cannot be read is
  // FAILED_PRECONDITION (also of later calls, which read them again).
  static absl::StatusOr<std::unique_ptr<EtcdClient>> Create(const EtcdOptions& options);
  // No call may be in progress. Watches may outlive the client.
  ~EtcdClient();
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  absl::StatusOr<EtcdEntry> Get(const std::string& key);
  // All keys that begin with `prefix`, which is not empty, as they were at one revision. Read in
  // pages; RESOURCE_EXHAUSTED over kEtcdListKeysMax or kEtcdListBytesMax. ABORTED when etcd forgot
  // the revision between pages, three times in a row.
  absl::StatusOr<EtcdEntries> List(const std::string& prefix);

  // The revision of the change. With a lease that does not exist NOT_FOUND.
  absl::StatusOr<int64_t> Put(const std::string& key, const std::string& value, int64_t lease = 0);
  // Whether there was such a key.
  absl::StatusOr<bool> Delete(const std::string& key);
  absl::StatusOr<EtcdCommit> Commit(const EtcdTransaction& transaction);

  // `ttl` is rounded up to seconds, at most kEtcdLeaseTtlMax; etcd has a least one (2 s by
  // default). A failed call may leave a lease behind, which ends by itself.
  absl::StatusOr<EtcdLease> GrantLease(absl::Duration ttl);
  // Deletes the keys of the lease. NOT_FOUND when there is no such lease.
  absl::Status RevokeLease(int64_t lease);
  // Starts the lease's time again and returns it; zero when there is no such lease. Ends within
  // `timeout`, too. etcd's time starts after this call began.
  absl::StatusOr<absl::Duration> KeepAlive(int64_t lease,
                                           absl::Duration timeout = absl::InfiniteDuration());

  // Reports every change from `from_revision` (at least 1; after List its revision + 1) to keys
  // that begin with `prefix` (not empty), until something fails or the watch is destroyed. Returns
  // at once; errors come through handler.on_end. Has a thread of its own, and asks etcd for a sign
  // of life whenever there was none for half of call_timeout.
  std::unique_ptr<EtcdWatch> Watch(const std::string& prefix, int64_t from_revision,
                                   EtcdWatchHandler handler);

 private:
  explicit EtcdClient(std::shared_ptr<EtcdConnection> connection);

  const std::shared_ptr<EtcdConnection> connection_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_ETCD_CLIENT_H_
