// Which nodes a cluster has and which of them hold what: one version of it, which nodes and clients
// share. Plain data; what is true of it is said by ValidateClusterMap.
#ifndef ATTIC_API_CLUSTER_MAP_H_
#define ATTIC_API_CLUSTER_MAP_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace attic {

inline constexpr uint32_t kClusterNodesMax = 4096;
inline constexpr uint32_t kClusterSlotsMax = 65536;
inline constexpr uint32_t kReplicasMax = 3;

enum class NodeState : uint8_t {
  kLive = 1,       // holds what the map says it holds
  kRepairing = 2,  // came back: takes writes, lacks some of what was written while it was away
  kDown = 3,       // not there
};
// "live", "repairing" or "down".
const char* NodeStateName(NodeState state);

struct ClusterNode {
  std::string id;
  std::string address;  // host:port that clients and other nodes reach it at
  std::string zone;     // replicas of a slot are spread over zones
  uint64_t capacity =
      1;  // relative to other nodes': a node of twice the capacity gets twice the slots
  std::string boot_id;  // of the process that is, or was last, there; empty where it is not known
  NodeState state = NodeState::kLive;
  bool draining = false;  // gives its slots away
  // Of a repairing node: it has caught up once, and appends are not acknowledged without it, so
  // that what it finds missing from now on is all that there is.
  bool joining = false;
  uint64_t state_epoch = 0;  // of the map in which state, joining or boot_id changed last

  bool operator==(const ClusterNode&) const = default;
};

// Nodes are named by their index in ClusterMap::nodes.
struct SlotAssignment {
  std::vector<uint32_t> replicas;  // distinct; a session with R replicas uses the first R
  std::vector<uint32_t> incoming;  // being filled; distinct, none of `replicas`
  // The rank (index in `replicas`, or one past the last) that each of `incoming` takes when it is
  // filled: it is to hold the sessions of more replicas than that. As many as `incoming`, distinct;
  // or empty where that is not known, and all sessions are to be held.
  std::vector<uint32_t> incoming_ranks;
  // The incoming nodes have caught up once, and nothing is acknowledged without them, so that what
  // they find missing from now on is all that there is.
  bool joining = false;
  uint64_t epoch = 0;  // of the map in which any of these changed last

  bool operator==(const SlotAssignment&) const = default;
};

struct ClusterMap {
  std::string cluster;
  uint64_t epoch = 0;              // grows with every change; 0: there is none yet
  uint32_t replicas_default = 2;   // of sessions that say nothing else
  uint64_t rebalanced = 0;         // the last wish of an operator for balance that was carried out
  std::vector<ClusterNode> nodes;  // in order of id
  std::vector<SlotAssignment> slots;

  bool operator==(const ClusterMap&) const = default;

  // The index of the node, or -1.
  int64_t FindNode(const std::string& node_id) const;
};

// INVALID_ARGUMENT naming what is wrong: counts over the limits above, nodes out of order or twice,
// no addresses, nodes that join and do not repair, slots that join without incoming nodes, indices
// of no node, a node twice in a slot, ranks that incoming nodes cannot take, an epoch beyond the
// map's.
absl::Status ValidateClusterMap(const ClusterMap& map);

// The nodes a session of `replicas` replicas is written to and read from in a slot: the first
// `replicas` of the assignment.
std::span<const uint32_t> ReplicasOf(const SlotAssignment& slot, uint32_t replicas);

// The rank that `slot.incoming[index]` is filled for: it holds sessions of more replicas than that.
// 0 where the map does not say.
uint32_t IncomingRank(const SlotAssignment& slot, size_t index);

// What an operator asks of a node.
enum class NodeChange : uint8_t {
  kAdd = 1,     // takes back the others
  kDrain = 2,   // its slots go to other nodes; it goes on serving until they have
  kRemove = 3,  // it does not come back: its slots are filled from other replicas at once
};

}  // namespace attic

#endif  // ATTIC_API_CLUSTER_MAP_H_
