// The session calls of a cluster client: a manifest and many shards made to look like one session.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SESSIONS_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SESSIONS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/description_merge.h"
#include "client/cpp/cluster/replica_calls.h"

namespace attic {

// Thread-safe. Methods named as those of Client mean the same; what changes a session is done on
// all of its replicas that are not down, and counts when every live one did it. A call that ends
// with UNAVAILABLE or DEADLINE_EXCEEDED may have been carried out on some of them; repeating it is
// harmless.
class ClusterSessions {
 public:
  explicit ClusterSessions(ClusterCore& core) : core_(core) {}

  absl::StatusOr<SessionDescription> Open(const OpenSessionRequest& request, absl::Time deadline);
  absl::StatusOr<SessionDescription> Describe(const std::string& session_id, absl::Time deadline);
  absl::StatusOr<SessionDescription> Fork(const std::string& session_id, const ForkOptions& options,
                                          absl::Time deadline);
  absl::StatusOr<SessionDescription> Truncate(const std::string& session_id, int64_t position,
                                              absl::Time deadline);
  absl::StatusOr<SessionDescription> Flush(const std::string& session_id, absl::Time deadline);
  // Sessions cut into blocks have no prefixes: nothing happens.
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                  uint32_t first_block,
                                                  std::span<const PrefixHash> hashes,
                                                  absl::Time deadline);
  absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id, absl::Time deadline);
  absl::StatusOr<SessionDescription> Pin(const std::string& session_id, bool pinned,
                                         absl::Time deadline);
  absl::Status Close(const std::string& session_id, absl::Time deadline);

  // Opens the manifest of a new session, whose shards are to come. ALREADY_EXISTS when the id is
  // taken. After any other error there is none, as far as nodes could be reached.
  absl::Status OpenEmpty(const SessionInfo& info, absl::Time deadline);
  // Renews the lease of the manifest alone.
  absl::Status RenewManifest(const SessionInfo& info, absl::Time deadline);
  // The session's manifest, remembered or read. NOT_FOUND when there is no such session.
  absl::StatusOr<std::shared_ptr<const SessionInfo>> Resolve(const std::string& session_id,
                                                             absl::Time deadline);
  // Every shard there is.
  absl::StatusOr<std::vector<ShardId>> AllShards(const SessionInfo& info, absl::Time deadline);
  // Renews the leases of manifest and shards; does not count as use of the session.
  absl::Status RenewShards(const SessionInfo& info, absl::Time deadline);
  // Up to where live replicas hold every head of a layer, looked up now.
  absl::StatusOr<int64_t> LookUpWatermark(const SessionInfo& info, uint32_t layer,
                                          absl::Time deadline);
  // Opens the blocks of a layer up to the last that an append needs.
  absl::Status EnsureBlock(const SessionInfo& info, uint32_t layer, uint32_t block,
                           absl::Time deadline);

 private:
  using MakeCall = std::function<v1::ShardCall(const std::string& session_id)>;

  ShardTarget ManifestTarget(const std::string& session_id, v1::ShardCall call) const;
  ShardTarget Target(const SessionInfo& info, const ShardId& shard, v1::ShardCall call) const;
  // The manifest as the nodes have it; absent: NOT_FOUND.
  absl::StatusOr<SessionDescription> ReadManifest(const std::string& session_id,
                                                  absl::Time deadline);

  absl::StatusOr<std::vector<ShardDescription>> DescribeShards(const SessionInfo& info,
                                                               std::span<const uint32_t> layers,
                                                               absl::Time deadline);
  // A call on the manifest and one on each of the shards. Replicas that lack something do not count
  // where another live one answered well.
  absl::StatusOr<SessionDescription> OnAll(const SessionInfo& info, std::span<const ShardId> shards,
                                           const MakeCall& manifest_call,
                                           const MakeCall& shard_call,
                                           const std::string& prefix_hashes, absl::Time deadline);
  void NoteWatermarks(const SessionDescription& description);

  // Opening; cluster_sessions_open.cc.
  absl::StatusOr<SessionInfo> InfoForOpen(const OpenSessionRequest& request, bool& exists,
                                          absl::Time deadline);
  absl::StatusOr<SessionDescription> OpenAs(const SessionInfo& info,
                                            const OpenSessionRequest& request, absl::Time deadline);
  absl::StatusOr<SessionDescription> OpenManifest(const SessionInfo& info,
                                                  const OpenSessionRequest& request,
                                                  absl::Time deadline);
  absl::StatusOr<std::vector<ShardDescription>> OpenShards(const SessionInfo& info,
                                                           const OpenSessionRequest& request,
                                                           bool created, absl::Time deadline);
  OpenSessionRequest ShardRequest(const SessionInfo& info, const ShardId& shard) const;
  // Cuts what some shards of a new session took over of a prefix to what all of them did.
  absl::Status EvenPrefix(const SessionInfo& info, const OpenSessionRequest& request,
                          std::span<const ShardTarget> targets, std::span<const ShardId> shards,
                          std::vector<ReplicaAnswers>& answers, absl::Time deadline);
  absl::StatusOr<std::vector<ShardDescription>> ForkShards(const SessionInfo& source,
                                                           const SessionInfo& fork,
                                                           int64_t position, absl::Time deadline);
  void CloseQuietly(const SessionInfo& info);

  ClusterCore& core_;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SESSIONS_H_
