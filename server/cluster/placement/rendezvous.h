// Which nodes a slot prefers: highest random weights (Thaler and Ravishankar, "Using name-based
// mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998), weighted by the
// logarithmic method (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005).
//
// A node that comes or goes changes the order of no two others. Of the nodes that remain each is
// first with a probability of its capacity over the sum of capacities.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_RENDEZVOUS_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_RENDEZVOUS_H_

#include <cstdint>
#include <string>

namespace attic {

// XXH3 of the id, seed 0.
uint64_t NodeHash(const std::string& node_id);

// capacity / -ln(u), where u in (0, 1) comes from XXH3 of the node's hash and the slot: the larger,
// the better. `capacity` is above 0.
double RendezvousScore(uint64_t node_hash, uint32_t slot, double capacity);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_RENDEZVOUS_H_
