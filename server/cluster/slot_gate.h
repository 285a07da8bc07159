// Whether a node may do what a request asks of a slot, by the cluster map that it knows.
//
// A request says by the map of which epoch its sender found the node. Writes reach only nodes that
// hold the slot in their own map, from senders that know of the slot's last change; so no two nodes
// own a slot by the same epoch.
//
// What a node lets in by one map it may still be applying when it knows the next. So that others
// can tell what it holds by a map (Settled), writes count as under way while the pass that let them
// in lives, and are let in only by the newest map.
#ifndef ATTIC_SERVER_CLUSTER_SLOT_GATE_H_
#define ATTIC_SERVER_CLUSTER_SLOT_GATE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/types.h"
#include "server/cluster/membership.h"
#include "server/cluster/writes_under_way.h"

namespace attic {

enum class GateRefusal : uint8_t {
  kNoMap,       // the node knows no map, or none in which this process is
  kBehind,      // the sender's map is newer
  kStaleEpoch,  // the slot changed since the sender's map, or the sender did not say which it knows
  kNotHere,     // the slot is on other nodes, or the node is down
};
inline constexpr size_t kGateRefusals = 4;

class NodeRepair;
class SlotGate;

// What one request may do, by one map; lives until the request did it. Its errors are counted by
// the gate, which it must not outlive. Not thread-safe.
class SlotPass {
 public:
  // The epoch of the map; 0 in a store that is no node.
  uint64_t epoch() const { return EpochOf(map_); }
  bool clustered() const { return map_ != nullptr; }
  // Of the cluster; 0 in a store that is no node.
  uint32_t slot_count() const {
    return map_ == nullptr ? 0 : static_cast<uint32_t>(map_->slots.size());
  }

  // OK when this node is a replica of a session so placed, or is being filled to become one.
  // ABORTED beginning with "stale epoch" when the slot changed, or a replica of the session came
  // back, since the sender's map, or the sender knows none; ABORTED when the slot is not on this
  // node, the node is down, or its map has changed since Admit; INVALID_ARGUMENT when the cluster
  // has no such slot. A write that may be done is under way until this is gone.
  absl::Status CheckWrite(const Placement& placement) const;
  // The same for reads, for which it does not matter who came back, and which senders that know no
  // map may ask for. Nodes that are being filled refuse them, as do those that are repairing while
  // another replica is live (UNAVAILABLE).
  absl::Status CheckRead(const Placement& placement) const;

  // What to answer when the session is not here. Without it nothing says which slot it is in: only
  // a live node and a sender with the same map know that there is none. ABORTED beginning with
  // "stale epoch" when the sender's map is another; UNAVAILABLE while the node is repairing;
  // `not_found` otherwise.
  absl::Status Missing(const absl::Status& not_found) const;

 private:
  friend class SlotGate;
  explicit SlotPass(uint64_t sender_epoch) : sender_epoch_(sender_epoch) {}

  enum class Use : uint8_t { kRead, kWrite };
  absl::Status Check(const Placement& placement, Use use) const;
  absl::Status Refuse(GateRefusal why, absl::Status status) const;

  SlotGate* gate_ = nullptr;
  mutable std::shared_ptr<const void> writing_;  // since the first write that may be done
  ClusterMapPtr map_;                            // null in a store that is no node
  uint32_t node_ = 0;
  uint64_t sender_epoch_ = 0;
};

// Thread-safe.
class SlotGate {
 public:
  // Of a store that is no node of a cluster: everything passes, from senders that know no epoch.
  SlotGate() = default;
  // Of a node, if `clustered`, whose process is `boot_id`. want_newer(epoch) is called when a
  // sender knows a map of that epoch, newer than the node's; it must not wait, and may be null.
  SlotGate(bool clustered, std::string boot_id, std::function<void(uint64_t epoch)> want_newer)
      : clustered_(clustered), boot_id_(std::move(boot_id)), want_newer_(std::move(want_newer)) {}

  // To be called once, on a node; nothing passes before.
  void Join(std::shared_ptr<Membership> membership);

  bool clustered() const { return clustered_; }
  // Null before Join, and in a store that is no node.
  Membership* membership() const { return joined_.load(std::memory_order_acquire); }
  // The newest map; null when none is known.
  ClusterMapPtr map() const;
  uint64_t epoch() const;
  // The node is live in the map it knows, as this process. Always, in a store that is no node.
  bool ready() const;

  // UNAVAILABLE before the first map, while the map does not know this process, and when the
  // sender's map is newer; ABORTED when this node is not in the map. In a store that is no node
  // FAILED_PRECONDITION for an epoch but 0.
  absl::StatusOr<SlotPass> Admit(uint64_t sender_epoch);

  // Whether all that was let in by maps before that of `epoch`, which the node must know, is
  // applied: what the node holds then, and what is written by that map or a later one, is all that
  // it will ever hold.
  bool Settled(uint64_t epoch) const { return !writes_.AnyBefore(epoch); }

  // What keeps the node filled, to be told of what callers find; null before SetRepair. It outlives
  // all calls that pass the gate.
  void SetRepair(NodeRepair* repair) { repair_.store(repair, std::memory_order_release); }
  NodeRepair* repair() const { return repair_.load(std::memory_order_acquire); }

  uint64_t refusals(GateRefusal why) const {
    return refusals_[static_cast<size_t>(why)].load(std::memory_order_relaxed);
  }

 private:
  friend class SlotPass;
  // Of which process the map speaks: another one's state says nothing of this one.
  bool IsThisProcess(const ClusterNode& node) const {
    return node.boot_id.empty() || node.boot_id == boot_id_;
  }
  absl::Status Refuse(GateRefusal why, absl::Status status);

  const bool clustered_ = false;
  const std::string boot_id_;
  const std::function<void(uint64_t)> want_newer_;
  std::shared_ptr<Membership> membership_;  // constant once joined_ points to it
  std::atomic<Membership*> joined_{nullptr};
  std::atomic<NodeRepair*> repair_{nullptr};
  WritesUnderWay writes_;
  std::array<std::atomic<uint64_t>, kGateRefusals> refusals_{};
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_SLOT_GATE_H_
