// One node of a cluster, as the cluster client talks to it: over gRPC (rpc_node_link.h), or to a
// store in the process, in tests.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_NODE_LINK_H_
#define ATTIC_CLIENT_CPP_CLUSTER_NODE_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attic/v1/admin.pb.h"
#include "attic/v1/attention.pb.h"
#include "attic/v1/cluster.pb.h"
#include "attic/v1/session.pb.h"
#include "attic/v1/shard.pb.h"
#include "attic/v1/snapshot.pb.h"

namespace attic {

// Takes the answer to a call, or why there is none. Called exactly once, by any thread, perhaps
// before the call returned: callers hold no lock over calls. Must not own the link.
template <typename Response>
using LinkDone = std::function<void(absl::StatusOr<Response>)>;

// Both are called one at a time, perhaps from within Send; on_finished once, last.
struct LinkAppendHandlers {
  std::function<void(const v1::AppendResponse&)> on_response;  // in the order of the requests
  std::function<void(const absl::Status&)> on_finished;
};

// A stream of appends to one node. Thread-safe.
class LinkAppends {
 public:
  // Ends the stream; when it returns no handler runs, nor will.
  virtual ~LinkAppends() = default;
  // After the stream's end without effect.
  virtual void Send(v1::AppendRequest request) = 0;
};

// A node that is silent for so long in the middle of a snapshot is given up: DEADLINE_EXCEEDED.
inline constexpr absl::Duration kSnapshotIdleTimeout = absl::Seconds(60);

// Takes the next piece of a snapshot; an error ends the call, which returns it.
using LinkChunkSink = std::function<absl::Status(const v1::SnapshotChunk& chunk)>;

// A snapshot on its way to one node, which has nothing of it before Finish. Destruction before that
// ends the call. Not thread-safe; must not outlive its link.
class LinkImport {
 public:
  virtual ~LinkImport() = default;
  // Waits until the chunk before this one has gone out. The error with which the node ended the
  // call, or the connection did; every call after that returns it.
  virtual absl::Status Write(v1::SnapshotChunk chunk) = 0;
  // There are no more chunks; does not wait for the answer.
  virtual void WritesDone() = 0;
  // Waits for it; to be called once, last.
  virtual absl::StatusOr<v1::SessionDescription> Finish() = 0;
};

// Thread-safe. Destruction ends the calls in progress and returns when their `done` have been.
class NodeLink {
 public:
  virtual ~NodeLink() = default;

  // These are answered by `deadline`, or soon after.
  virtual void GetMap(const v1::GetMapRequest& request, absl::Time deadline,
                      LinkDone<v1::GetMapResponse> done) = 0;
  virtual void CallShards(const v1::ShardCalls& request, absl::Time deadline,
                          LinkDone<v1::ShardResults> done) = 0;
  virtual void List(const v1::ListRequest& request, absl::Time deadline,
                    LinkDone<v1::ListResponse> done) = 0;
  virtual void Plan(const v1::PlanRequest& request, absl::Time deadline,
                    LinkDone<v1::PlanResponse> done) = 0;
  virtual void GetStatus(const v1::GetStatusRequest& request, absl::Time deadline,
                         LinkDone<v1::StoreStatus> done) = 0;
  virtual void Search(const v1::SearchRequest& request, absl::Time deadline,
                      LinkDone<v1::SearchResponse> done) = 0;

  // Has no deadline of its own: whoever stops waiting abandons the call, whose number this returns.
  virtual uint64_t Attend(v1::AttendRequest request, LinkDone<v1::AttendResponse> done) = 0;
  // The answer is not waited for any more; `done` may still be called, or never.
  virtual void Abandon(uint64_t call) = 0;

  virtual std::unique_ptr<LinkAppends> OpenAppends(LinkAppendHandlers handlers) = 0;

  // These block the calling thread, which keeps the link meanwhile.
  virtual absl::Status Export(const v1::ExportRequest& request, absl::Time deadline,
                              const LinkChunkSink& take) = 0;
  virtual std::unique_ptr<LinkImport> OpenImport(absl::Time deadline) = 0;
};

using NodeLinkFactory = std::function<std::unique_ptr<NodeLink>(const std::string& address)>;

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_NODE_LINK_H_
