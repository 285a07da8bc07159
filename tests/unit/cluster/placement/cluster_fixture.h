// Clusters for tests of placement: views with members, and what is measured of maps.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_PLACEMENT_CLUSTER_FIXTURE_H_
#define ATTIC_TESTS_UNIT_CLUSTER_PLACEMENT_CLUSTER_FIXTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "api/cluster_map.h"
#include "server/cluster/placement/next_map.h"

namespace attic {

Member MakeMember(const std::string& id, const std::string& zone = "", uint64_t capacity = 1);
// "n0000" and so on, spread over zones "z0" and so on in turn; zones 0: all in zone "".
std::vector<Member> MakeMembers(uint32_t count, uint32_t zones);
// Inserts it in order of id.
void Join(ClusterView& view, const Member& member);
void Leave(ClusterView& view, const std::string& id);
Member& MemberOf(ClusterView& view, const std::string& id);

// Every incoming slot is reported as filled, every node as synced, as of `map`.
void ReportAll(const ClusterMap& map, ClusterView& view);
// NextMap, and that the map is valid, that it has the next epoch or is the same, that the same view
// changes nothing more, and that slots' epochs tell what changed. EXPECTs.
ClusterMap CheckedNext(const ClusterMap& map, const ClusterView& view,
                       const PlacementOptions& options);
// NextMap with reports until nothing changes; at most `rounds` times.
ClusterMap Settle(ClusterMap map, ClusterView& view, const PlacementOptions& options,
                  int rounds = 10000);

// Replicas that are on another node than before (or new), over all slots, by ids.
size_t ReplicasMoved(const ClusterMap& before, const ClusterMap& after);
// How often the node is among the first `replicas` of a slot.
size_t SlotsOf(const ClusterMap& map, const std::string& id, uint32_t replicas = kReplicasMax);
// Over live nodes that are not draining, and all k: the largest distance from the share, as a part
// of it, less a slot for rounding. Shares come from an oracle of its own: proportional to capacity,
// as far as `slots` permits.
double WorstImbalance(const ClusterMap& map);
// Slots that have fewer than `replicas` live replicas that are not draining, or two in a zone.
size_t SlotsNotSpread(const ClusterMap& map, uint32_t replicas);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_PLACEMENT_CLUSTER_FIXTURE_H_
