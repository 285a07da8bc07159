#include "server/cluster/repair/remote_peer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/cluster/repair/peer_stream.h"
#include "server/cluster/repair/repair_pass.h"
#include "wire/channel.h"
#include "wire/convert.h"

namespace attic {
namespace {

// Shards asked for in one message, far below what a node takes.
constexpr size_t kFoundTogether = 512;

HeldShard FromWire(const v1::ShardEntry& entry) {
  return {.session_id = entry.session_id(),
          .slot = entry.slot(),
          .replicas = entry.replicas(),
          .watermark = entry.watermark(),
          .durability = entry.durable() ? Durability::kDurable : Durability::kMemory};
}

}  // namespace

RemotePeer::RemotePeer(const std::string& address, const Limits& limits)
    : RemotePeer(wire::MakeChannel(address, limits.message_bytes_max)) {}

RemotePeer::RemotePeer(std::shared_ptr<grpc::Channel> channel)
    : shards_(v1::ShardService::NewStub(channel)),
      sessions_(v1::SessionService::NewStub(channel)) {}

absl::Status RemotePeer::Ask(const v1::InventoryRequest& request, absl::Time deadline,
                             PeerInventory& inventory) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const auto reader = shards_->Inventory(&context, request);
  v1::ShardInventory page;
  while (reader->Read(&page)) {
    inventory.boot_id = page.boot_id();
    if (inventory.shards.size() + page.entries_size() > kInventoryShardsMax) {
      context.TryCancel();
      reader->Finish();
      return absl::ResourceExhaustedError(absl::StrCat(
          "inventory: more shards than the limit kInventoryShardsMax of ", kInventoryShardsMax));
    }
    for (const v1::ShardEntry& entry : page.entries()) inventory.shards.push_back(FromWire(entry));
  }
  return wire::FromGrpc(reader->Finish());
}

absl::StatusOr<PeerInventory> RemotePeer::Inventory(std::span<const uint32_t> slots, uint64_t epoch,
                                                    absl::Time deadline) {
  PeerInventory inventory;
  if (slots.empty()) return inventory;  // a request for none would be one for all
  v1::InventoryRequest request;
  request.mutable_slots()->Add(slots.begin(), slots.end());
  request.set_epoch(epoch);
  ATTIC_RETURN_IF_ERROR(Ask(request, deadline, inventory));
  return inventory;
}

absl::StatusOr<PeerInventory> RemotePeer::Find(std::span<const std::string> session_ids,
                                               uint64_t epoch, absl::Time deadline) {
  PeerInventory inventory;
  while (!session_ids.empty()) {
    const auto some = session_ids.first(std::min(session_ids.size(), kFoundTogether));
    session_ids = session_ids.subspan(some.size());
    v1::InventoryRequest request;
    request.mutable_session_ids()->Add(some.begin(), some.end());
    request.set_epoch(epoch);
    ATTIC_RETURN_IF_ERROR(Ask(request, deadline, inventory));
  }
  return inventory;
}

absl::StatusOr<RowsDigest> RemotePeer::Digest(const std::string& session_id, absl::Time deadline) {
  v1::DigestRequest request;
  request.set_session_id(session_id);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::DigestResponse response;
  ATTIC_RETURN_IF_ERROR(wire::FromGrpc(shards_->Digest(&context, request, &response)));
  return RowsDigest{.watermark = response.watermark(),
                    .blocks = {response.blocks().begin(), response.blocks().end()},
                    .rest = response.rest()};
}

absl::Status RemotePeer::ReadRows(const std::string& session_id, int64_t begin, int64_t end,
                                  absl::Duration idle_timeout, const RowsSink& sink) {
  v1::ReadRowsRequest request;
  request.set_session_id(session_id);
  request.set_begin(begin);
  request.set_end(end);
  grpc::ClientContext context;
  int64_t position = begin;
  std::vector<float> query_sample;
  const auto take = [&](const v1::AppendRequest& message) -> absl::Status {
    ATTIC_ASSIGN_OR_RETURN(const AppendBatch batch, wire::FromWire(message, query_sample));
    const int64_t count = static_cast<int64_t>(batch.count);
    if (batch.session_id != session_id || batch.begin_position != position || count == 0 ||
        count > end - position) {
      return absl::DataLossError("peer: sent other rows than those asked for");
    }
    position += count;
    return sink(batch);
  };
  ATTIC_RETURN_IF_ERROR(ReadPeerStream<v1::AppendRequest>(
      context,
      [&](grpc::ClientContext& started, grpc::CompletionQueue& queue) {
        return shards_->PrepareAsyncReadRows(&started, request, &queue);
      },
      idle_timeout, take));
  if (position < end) return absl::DataLossError("peer: sent fewer rows than asked for");
  return absl::OkStatus();
}

absl::Status RemotePeer::Export(const std::string& session_id, absl::Duration idle_timeout,
                                const BytesSink& sink) {
  v1::ExportRequest request;
  request.set_session_id(session_id);
  grpc::ClientContext context;
  return ReadPeerStream<v1::SnapshotChunk>(
      context,
      [&](grpc::ClientContext& started, grpc::CompletionQueue& queue) {
        return sessions_->PrepareAsyncExport(&started, request, &queue);
      },
      idle_timeout, [&](const v1::SnapshotChunk& chunk) { return sink(chunk.data()); });
}

ShardPeerFactory RemotePeers(const Limits& limits) {
  return [limits](const ClusterNode& node) {
    return std::make_shared<RemotePeer>(node.address, limits);
  };
}

}  // namespace attic
