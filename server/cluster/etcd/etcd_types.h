// What the etcd client takes and returns, in plain C++. A revision is etcd's count of changes to
// all its keys; it starts again when etcd loses its data.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_ETCD_TYPES_H_
#define ATTIC_SERVER_CLUSTER_ETCD_ETCD_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace attic {

// Limits of what is sent to etcd and of what is taken from it.
inline constexpr size_t kEtcdEndpointsMax = 16;
inline constexpr size_t kEtcdKeyBytesMax = 1024;
inline constexpr size_t kEtcdValueBytesMax = 1u << 20;     // etcd refuses requests over 1.5 MiB
inline constexpr size_t kEtcdMessageBytesMax = 16u << 20;  // one answer
inline constexpr size_t kEtcdListPageKeys = 256;
inline constexpr size_t kEtcdListKeysMax = 65'536;
inline constexpr size_t kEtcdListBytesMax = 64u << 20;
inline constexpr size_t kEtcdTransactionOperationsMax = 128;  // of each kind, as etcd's own default
inline constexpr absl::Duration kEtcdLeaseTtlMax = absl::Hours(24);

struct EtcdOptions {
  // HOST:PORT each. The first is asked until it fails, then the next, and so on in a circle.
  std::vector<std::string> endpoints;
  // One attempt at one endpoint takes at most connect_timeout, then call_timeout.
  absl::Duration connect_timeout = absl::Seconds(1);
  absl::Duration call_timeout = absl::Seconds(2);
  // PEM files. With ca_file etcd is reached by TLS and must have a certificate of that authority
  // for the endpoint's host; with cert_file and key_file the client shows one, too. They are read
  // again for each new connection.
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  // etcd's own authentication. The file, less line ends at its end, is the password; it is read
  // again whenever etcd asks for a new token. Without TLS it can be seen on the network.
  std::string user;
  std::string password_file;
};

struct EtcdKeyValue {
  std::string key;
  std::string value;
  int64_t create_revision = 0;  // when the key was made; made again after a deletion, another
  int64_t mod_revision = 0;     // of the last change
  int64_t version = 0;          // puts since the key was made, from 1
  int64_t lease = 0;            // 0: none
};

struct EtcdEntry {
  std::optional<EtcdKeyValue> entry;  // none: there is no such key
  int64_t revision = 0;               // of etcd when it answered
};

struct EtcdEntries {
  std::vector<EtcdKeyValue> entries;  // by ascending key
  int64_t revision = 0;               // at which all of them were so
};

// Holds when the number of the key equals `number`. Of a key that does not exist all are 0.
struct EtcdCompare {
  enum class Target { kCreateRevision, kModRevision, kVersion };
  Target target = Target::kModRevision;
  std::string key;
  int64_t number = 0;
};

struct EtcdPut {
  std::string key;
  std::string value;
  int64_t lease = 0;  // 0: none; otherwise the key is deleted when the lease ends
};

// Puts and deletes, no key twice, that are done together if every comparison holds, or not at all.
struct EtcdTransaction {
  std::vector<EtcdCompare> compares;
  std::vector<EtcdPut> puts;
  std::vector<std::string> deletes;
};

struct EtcdCommit {
  bool succeeded = false;  // false: some comparison did not hold, and nothing was done
  int64_t revision = 0;    // of etcd after it; if succeeded, the mod_revision of the keys put
};

struct EtcdLease {
  int64_t id = 0;
  absl::Duration ttl;  // may be more than was asked for
};

struct EtcdEvent {
  bool deleted = false;  // then only key and mod_revision, that of the deletion, are set
  EtcdKeyValue entry;
};

// Called on the watch's own thread, without locks held, one at a time. They must not destroy the
// watch.
struct EtcdWatchHandler {
  // Changes in the order they were made, at least one. Changes of one transaction may come in two
  // calls.
  std::function<void(std::span<const EtcdEvent>)> on_events;
  // Once, last, and never with OK: no more events will come, and some may have been missed, so that
  // the owner has to list again before it watches again (after a pause, or it will do nothing
  // else). Not called when the watch is destroyed before.
  //   OUT_OF_RANGE: the revision is older than the history etcd keeps, or newer than etcd's
  //   DEADLINE_EXCEEDED: etcd was asked for a sign of life and gave none within call_timeout
  //   UNAVAILABLE: the connection failed, or the member of etcd has no leader
  std::function<void(const absl::Status&)> on_end;
};

// Lives while the watch is to go on. The destructor waits for a handler that is running, and while
// the watch is being opened for at most connect_timeout and call_timeout.
class EtcdWatch {
 public:
  virtual ~EtcdWatch() = default;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_ETCD_TYPES_H_
