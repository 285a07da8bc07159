// attic::Client: sessions, appending, attention and search against a store or a cluster of them,
// over the network, or a store in this process, through one interface.
//
//   auto client = attic::ConnectClient({.address = "127.0.0.1:7400"});
//   (*client)->OpenSession({.session_id = "book", .fingerprint = f, .stored_layers = {0}});
//   auto stream = (*client)->OpenAppendStream();
//   (*stream)->Append(batch);
//   (*stream)->Flush(deadline);
//   auto answers = (*client)->Attend({&item, 1}, deadline);
//
// A complete program: client/cpp/examples/quickstart.cc.
//
// All methods are thread-safe unless said otherwise. Errors are the store's own (see
// proto/attic/v1/*.proto), plus UNAVAILABLE and DEADLINE_EXCEEDED from the network. Every call ends
// by its deadline. A store that was restarted has forgotten its sessions in memory: calls on them
// return NOT_FOUND, and answers carry the new boot_id.
#ifndef ATTIC_CLIENT_CPP_CLIENT_H_
#define ATTIC_CLIENT_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "api/types.h"

namespace attic {

struct ClientOptions {
  // Of a store, or of some stores of a cluster, with commas between: "a:7400,b:7400". The others
  // are found through the first that answers.
  std::string address = "127.0.0.1:7400";
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration call_timeout = absl::Seconds(30);  // for calls without a deadline argument
  Limits limits;
};

// Appends in order, pipelined. Not thread-safe: one writer. Destruction abandons what is not
// acknowledged.
class AppendStream {
 public:
  virtual ~AppendStream() = default;
  // Sends a batch (copied before returning); waits while limits.append_bytes_in_flight_max are
  // unacknowledged, DEADLINE_EXCEEDED when nothing is acknowledged for call_timeout. Returns the
  // first error of an earlier batch; after an error the stream is finished.
  virtual absl::Status Append(const AppendBatch& batch) = 0;
  // Waits until everything sent is acknowledged; returns the last acknowledgement, or the first
  // error. After DEADLINE_EXCEEDED the stream can still be used.
  virtual absl::StatusOr<AppendAck> Flush(absl::Time deadline) = 0;
};

// Takes the next bytes of a snapshot; `total_bytes` is about how many there are in all.
using SnapshotWrite = std::function<absl::Status(std::string_view bytes, uint64_t total_bytes)>;
// Gives the next bytes of a snapshot, any number up to 1 MiB; none at its end.
using SnapshotRead = std::function<absl::StatusOr<std::string>()>;

class Client {
 public:
  virtual ~Client() = default;

  virtual absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) = 0;
  virtual absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) = 0;
  // How queries of every head are answered, in order of layer, then of kv head.
  virtual absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) = 0;
  virtual absl::StatusOr<std::vector<SessionDescription>> ListSessions() = 0;
  virtual absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                         const ForkOptions& options) = 0;
  virtual absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                             int64_t position) = 0;
  // Returns when everything appended before the call is durable. FAILED_PRECONDITION for a session
  // in memory.
  virtual absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                          absl::Time deadline) = 0;
  // Registers the hashes of the blocks from the first_block'th on (api/prefix_hashes.h).
  // ALREADY_EXISTS when one registered before differs, OUT_OF_RANGE beyond their number.
  virtual absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                          uint32_t first_block,
                                                          std::span<const PrefixHash> hashes) = 0;
  // A lease runs for ttl_seconds from now on; see proto/attic/v1/session.proto.
  virtual absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) = 0;
  virtual absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                        bool pinned) = 0;
  virtual absl::Status CloseSession(const std::string& session_id) = 0;

  // The session as a file (server/storage/SNAPSHOT.md, of a cluster
  // client/cpp/cluster/SNAPSHOT.md), piece by piece, on the calling thread. What was written before
  // an error is no whole snapshot. An error of `write` ends the call and is returned.
  virtual absl::Status ExportSession(const std::string& session_id, absl::Time deadline,
                                     const SnapshotWrite& write) = 0;
  // Makes a session of such a file; see proto/attic/v1/session.proto. After an error there is none.
  // An error of `read` ends the call and is returned. A store and a cluster do not read each
  // other's files: FAILED_PRECONDITION.
  virtual absl::StatusOr<SessionDescription> ImportSession(const ImportOptions& options,
                                                           absl::Time deadline,
                                                           const SnapshotRead& read) = 0;

  virtual absl::StatusOr<std::unique_ptr<AppendStream>> OpenAppendStream() = 0;

  // One answer per item, in order; all items have the same layer. An item's failure is in its
  // answer's status. Over the network all threads share one long-lived bidirectional stream; of the
  // time left nine tenths are sent as the store's budget. Waits while
  // limits.attend_requests_in_flight_max calls are in flight.
  virtual absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                           absl::Time deadline) = 0;
  virtual absl::StatusOr<SearchAnswer> Search(const SearchRequest& request,
                                              absl::Time deadline) = 0;
  virtual absl::StatusOr<StoreStatus> Status() = 0;
};

// Connects to the store, or to the cluster that the first store that answers belongs to;
// UNAVAILABLE when none answers within connect_timeout. Reconnects by itself: while the store is
// away calls fail with UNAVAILABLE, and go through again within about a second of its return. With
// a cluster, calls go on with the nodes that are left, as client/cpp/cluster/ says. The
// connections are not encrypted.
absl::StatusOr<std::unique_ptr<Client>> ConnectClient(const ClientOptions& options);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLIENT_H_
