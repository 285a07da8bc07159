// A node over the network, as repair sees it.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_REMOTE_PEER_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_REMOTE_PEER_H_

#include <memory>
#include <string>

#include "api/limits.h"
#include "attic/v1/session.grpc.pb.h"
#include "attic/v1/shard.grpc.pb.h"
#include "server/cluster/repair/shard_peer.h"

namespace attic {

// Thread-safe: one connection for all calls. Does not wait for it.
class RemotePeer final : public ShardPeer {
 public:
  RemotePeer(const std::string& address, const Limits& limits);

  // Besides errors of the peer RESOURCE_EXHAUSTED for more than kInventoryShardsMax shards.
  absl::StatusOr<PeerInventory> Inventory(std::span<const uint32_t> slots, uint64_t epoch,
                                          absl::Time deadline) override;
  absl::StatusOr<PeerInventory> Find(std::span<const std::string> session_ids, uint64_t epoch,
                                     absl::Time deadline) override;
  absl::StatusOr<RowsDigest> Digest(const std::string& session_id, absl::Time deadline) override;
  // DATA_LOSS for rows that are not those asked for.
  absl::Status ReadRows(const std::string& session_id, int64_t begin, int64_t end,
                        absl::Duration idle_timeout, const RowsSink& sink) override;
  absl::Status Export(const std::string& session_id, absl::Duration idle_timeout,
                      const BytesSink& sink) override;

 private:
  explicit RemotePeer(std::shared_ptr<grpc::Channel> channel);
  absl::Status Ask(const v1::InventoryRequest& request, absl::Time deadline,
                   PeerInventory& inventory);

  const std::unique_ptr<v1::ShardService::Stub> shards_;
  const std::unique_ptr<v1::SessionService::Stub> sessions_;
};

// Makes RemotePeers.
ShardPeerFactory RemotePeers(const Limits& limits);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_REMOTE_PEER_H_
