#include "server/cluster/placement/rendezvous.h"

#include <xxhash.h>

#include <cmath>

namespace attic {

uint64_t NodeHash(const std::string& node_id) {
  return XXH3_64bits(node_id.data(), node_id.size());
}

double RendezvousScore(uint64_t node_hash, uint32_t slot, double capacity) {
  const uint64_t words[2] = {node_hash, slot};
  const uint64_t hash = XXH3_64bits(words, sizeof(words));
  // The upper 52 bits and a half: never 0 and never 1.
  const double u = (static_cast<double>(hash >> 12) + 0.5) * 0x1.0p-52;
  return capacity / -std::log(u);
}

}  // namespace attic
