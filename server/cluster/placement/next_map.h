// What the controller does: from the map of now and what is seen of the nodes to the next map. Pure
// functions, which the elected controller and simulations share.
//
// The rules, as an operator sees them.
//
// Nodes. A node that is registered for the first time is live and holds nothing. One whose
// registration ends is down at once; nothing is moved yet. One that comes back, or whose process is
// another than before (boot id), is repairing: it is written to, and not read, until it reports
// that it has filled the map in which it became so, or a later one. That makes it joining, which
// writers wait for; a report by a map that says so makes it live. Address, zone and capacity are
// those of the registration.
//
// Who takes over. A node leaves its slots when it has been down for `replace_after`, when an
// operator drains or removes it. Another live node is chosen for each, which becomes `incoming`, is
// filled, reports so, joins the slot, reports so by a map that says that, and only then takes the
// other's place, at the same rank. Ranks matter: sessions of R replicas are on the first R. A
// survivor that moved up would lack the sessions of fewer replicas than its old rank, so survivors
// stay where they are. An incoming node that goes away is dropped; a node that comes back while it
// is being replaced keeps its slots, unless the other one is filled already, or an operator wants
// it emptied.
//
// What "filled" means. An incoming node may report a slot when it holds all that those replicas
// hold which the map (of the report's epoch) does not call down, of the sessions of more replicas
// than the rank it is to take (IncomingRank). The report counts as long as the slot and the state
// of the node that is replaced are as in that map, and once the incoming node is live. One that
// joins and reports without the slot, or was away, joins no longer. A node that is down, but may
// come back, is not replaced by what was filled without it.
//
// What is never given up. A rank is filled only while there is a live node among the first
// max(rank + 1, replicas_default) replicas. Without one the slot is left to its nodes, down as
// they are: their data may come back. (That protects sessions of replicas_default replicas and
// more. Those of fewer lose what they have on a node that is replaced while it is down.) `remove`
// says that it does not: a removed node that is not registered does not count, and a slot of which
// all nodes are so gets new ones, which hold nothing. A node that is down or removed, not
// registered, and holds nothing disappears from the map (down: after `replace_after`), as if it had
// never been there. One that is removed and registered is drained, and does not get in again.
//
// Where to. Each slot prefers nodes by weighted rendezvous hashing (rendezvous.h). Of the nodes it
// is put on those of other zones than its other replicas, of these those that have room. Slots have
// `replicas` replicas as far as there are nodes; in different zones as far as there are zones; else
// on different nodes. Where there are fewer nodes than that, a node that is emptied is replaced by
// the one with the last rank, which is given up.
//
// Balance. A node's share of the slots is by capacity (shares.h says what becomes of a node or zone
// that is larger than what it may hold). Of the first replicas, of the first two, and of all, each
// node has its share up to `imbalance_max`, rounded to whole slots; only nodes beyond that have
// slots moved for balance, and only as many as it takes. So a node that comes as the fourth of four
// equal ones gets between 1 - imbalance_max and 1 of a quarter of the replicas, and nothing else
// moves. `rebalance` asks for balance to the slot, once. Nodes that are down keep their slots and
// take none. Where a zone is in almost every slot (as with as many zones as replicas), what moves
// is up to 2.5 times the least: first replicas get from zone to zone only by two nodes that are
// filled for each other's ranks (zone_exchanges.cc).
//
// At most `incoming_max` replicas are being filled at a time. What is in danger comes first: slots
// with the fewest live replicas, then what operators want emptied, then zones, then balance.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_MAP_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_MAP_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "api/cluster_map.h"

namespace attic {

struct PlacementOptions {
  uint32_t slots = 4096;          // of a new cluster; an existing one keeps its number
  uint32_t replicas_default = 2;  // of sessions that say nothing else
  uint32_t replicas = 3;          // of a slot, as far as there are nodes; at least replicas_default
  // How long a node may be down before other nodes take its place. Its slots are served by their
  // other replicas from the start.
  absl::Duration replace_after = absl::Minutes(5);
  // Replicas being filled at a time, in the whole cluster: a bound on movement.
  uint32_t incoming_max = 64;
  // How far a node may be from its share of the slots before slots are moved for balance alone.
  double imbalance_max = 0.10;
};

// A node that is registered now.
struct Member {
  std::string node_id;
  std::string address;
  std::string zone;
  uint64_t capacity = 1;
  std::string boot_id;
  // Its last report (SyncReport in server/cluster/membership.h), as far as it is of this boot. Of
  // the node it counts when its epoch is at least the node's state_epoch: one makes it joining, the
  // next one, of peers that refuse who does not know that, live; of a slot, when its epoch is at
  // least the slot's epoch and the state_epoch of the node that is replaced.
  uint64_t synced_epoch = 0;
  bool node_synced = false;
  std::set<uint32_t> synced_slots;
};

// What the controller sees. Times are of its own monotonic clock.
struct ClusterView {
  absl::Time now;
  std::vector<Member> members;     // in order of node_id, each once
  std::set<std::string> draining;  // wishes of operators
  std::set<std::string> removed;   //
  std::map<std::string, absl::Time>
      down_since;          // of nodes that are not members; kept by the caller
  uint64_t rebalance = 0;  // counts up when an operator asks for it; 0: nobody has
};

// The map that follows `map`, whose epoch is one more, or `map` itself where nothing has to change:
// with the same view, the map that follows the next one is the next one. An empty `map` (epoch 0,
// which may name the cluster) becomes the first one as soon as there is a member; what members
// there are then share the slots, without being filled.
//
// `map` is empty or one that ValidateClusterMap accepts, and so is the result. A slot's epoch is
// that of the result if its nodes or ranks change, not if states of nodes do. Members that the map
// cannot hold (no id, no address, or more nodes than kClusterNodesMax) count as not registered;
// options beyond their bounds as the nearest within.
ClusterMap NextMap(const ClusterMap& map, const ClusterView& view, const PlacementOptions& options);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_MAP_H_
