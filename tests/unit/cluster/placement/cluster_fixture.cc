#include "tests/unit/cluster/placement/cluster_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace attic {
namespace {

bool ById(const Member& member, const std::string& id) { return member.node_id < id; }

std::vector<std::string> Ids(const ClusterMap& map, const std::vector<uint32_t>& nodes) {
  std::vector<std::string> ids;
  for (const uint32_t node : nodes) ids.push_back(map.nodes[node].id);
  return ids;
}

bool SameSlot(const ClusterMap& a, const ClusterMap& b, size_t slot) {
  const SlotAssignment& x = a.slots[slot];
  const SlotAssignment& y = b.slots[slot];
  return Ids(a, x.replicas) == Ids(b, y.replicas) && Ids(a, x.incoming) == Ids(b, y.incoming) &&
         x.incoming_ranks == y.incoming_ranks && x.joining == y.joining;
}

bool Staying(const ClusterNode& node) { return node.state != NodeState::kDown && !node.draining; }

// What zones or nodes cannot take is given to the others until all fits: the oracle of shares.h.
std::vector<double> OracleShares(const ClusterMap& map, uint32_t k) {
  const double slots = static_cast<double>(map.slots.size());
  std::map<std::string, std::vector<size_t>> zones;
  for (size_t i = 0; i < map.nodes.size(); ++i) {
    if (Staying(map.nodes[i])) zones[map.nodes[i].zone].push_back(i);
  }
  const double zone_max = slots * (zones.size() >= k ? 1 : k - zones.size() + 1);
  std::vector<double> shares(map.nodes.size(), 0);
  double left = slots * k;
  for (int round = 0; round < 2000 && left > 1e-6 * slots; ++round) {
    std::vector<double> offers(map.nodes.size(), 0);
    double capacity = 0;
    for (const auto& [zone, nodes] : zones) {
      double held = 0;
      for (const size_t node : nodes) held += shares[node];
      for (const size_t node : nodes) {
        if (held >= zone_max - 1e-9 || shares[node] >= slots - 1e-9) continue;
        offers[node] = static_cast<double>(map.nodes[node].capacity);
        capacity += offers[node];
      }
    }
    if (capacity == 0) break;
    double part = 1;  // of what is left, so that nothing overflows
    for (const auto& [zone, nodes] : zones) {
      double held = 0;
      double offered = 0;
      for (const size_t node : nodes) {
        const double offer = left * offers[node] / capacity;
        if (offer > 0) part = std::min(part, (slots - shares[node]) / offer);
        held += shares[node];
        offered += offer;
      }
      if (offered > 0) part = std::min(part, (zone_max - held) / offered);
    }
    const double given = left * part;
    for (size_t i = 0; i < shares.size(); ++i) shares[i] += given * offers[i] / capacity;
    left -= given;
  }
  return shares;
}

}  // namespace

Member MakeMember(const std::string& id, const std::string& zone, uint64_t capacity) {
  return {.node_id = id,
          .address = absl::StrCat(id, ":7400"),
          .zone = zone,
          .capacity = capacity,
          .boot_id = "boot1"};
}

std::vector<Member> MakeMembers(uint32_t count, uint32_t zones) {
  std::vector<Member> members;
  for (uint32_t i = 0; i < count; ++i) {
    members.push_back(
        MakeMember(absl::StrFormat("n%04d", i), zones == 0 ? "" : absl::StrCat("z", i % zones)));
  }
  return members;
}

void Join(ClusterView& view, const Member& member) {
  const auto at = std::lower_bound(view.members.begin(), view.members.end(), member.node_id, ById);
  view.members.insert(at, member);
  view.down_since.erase(member.node_id);
}

void Leave(ClusterView& view, const std::string& id) {
  std::erase_if(view.members, [&](const Member& member) { return member.node_id == id; });
  view.down_since.emplace(id, view.now);
}

Member& MemberOf(ClusterView& view, const std::string& id) {
  return *std::lower_bound(view.members.begin(), view.members.end(), id, ById);
}

void ReportAll(const ClusterMap& map, ClusterView& view) {
  for (Member& member : view.members) {
    member.synced_epoch = map.epoch;
    member.node_synced = true;
    member.synced_slots.clear();
  }
  for (uint32_t slot = 0; slot < map.slots.size(); ++slot) {
    for (const uint32_t node : map.slots[slot].incoming) {
      MemberOf(view, map.nodes[node].id).synced_slots.insert(slot);
    }
  }
}

ClusterMap CheckedNext(const ClusterMap& map, const ClusterView& view,
                       const PlacementOptions& options) {
  const ClusterMap next = NextMap(map, view, options);
  if (next == map) return next;
  EXPECT_EQ(ValidateClusterMap(next), absl::OkStatus());
  EXPECT_EQ(next.epoch, map.epoch + 1);
  EXPECT_TRUE(NextMap(next, view, options) == next) << "not a fixed point, epoch " << next.epoch;
  size_t incoming = 0;
  for (size_t slot = 0; slot < next.slots.size(); ++slot) {
    incoming += next.slots[slot].incoming.size();
    if (map.epoch == 0) continue;
    const uint64_t epoch = SameSlot(map, next, slot) ? map.slots[slot].epoch : next.epoch;
    EXPECT_EQ(next.slots[slot].epoch, epoch) << "slot " << slot;
  }
  EXPECT_LE(incoming, options.incoming_max);
  return next;
}

ClusterMap Settle(ClusterMap map, ClusterView& view, const PlacementOptions& options, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    ReportAll(map, view);
    ClusterMap next = CheckedNext(map, view, options);
    if (next == map) return map;
    map = std::move(next);
  }
  ADD_FAILURE() << "not settled in " << rounds << " rounds";
  return map;
}

size_t ReplicasMoved(const ClusterMap& before, const ClusterMap& after) {
  size_t moved = 0;
  for (size_t slot = 0; slot < after.slots.size(); ++slot) {
    const std::vector<std::string> old = Ids(before, before.slots[slot].replicas);
    for (const std::string& id : Ids(after, after.slots[slot].replicas)) {
      moved += std::find(old.begin(), old.end(), id) == old.end() ? 1 : 0;
    }
  }
  return moved;
}

size_t SlotsOf(const ClusterMap& map, const std::string& id, uint32_t replicas) {
  const int64_t node = map.FindNode(id);
  size_t count = 0;
  for (const SlotAssignment& slot : map.slots) {
    for (const uint32_t replica : ReplicasOf(slot, replicas)) count += replica == node ? 1 : 0;
  }
  return count;
}

double WorstImbalance(const ClusterMap& map) {
  uint32_t replicas = 0;
  for (const SlotAssignment& slot : map.slots) {
    replicas = std::max<uint32_t>(replicas, slot.replicas.size());
  }
  double worst = 0;
  for (uint32_t k = 1; k <= replicas; ++k) {
    const std::vector<double> shares = OracleShares(map, k);
    std::vector<double> counts(map.nodes.size(), 0);
    for (const SlotAssignment& slot : map.slots) {
      for (const uint32_t node : ReplicasOf(slot, k)) ++counts[node];
    }
    for (size_t i = 0; i < counts.size(); ++i) {
      if (!Staying(map.nodes[i])) continue;
      const double distance = std::max(0.0, std::abs(counts[i] - shares[i]) - 1);
      worst = std::max(worst, distance / std::max(shares[i], 1.0));
    }
  }
  return worst;
}

size_t SlotsNotSpread(const ClusterMap& map, uint32_t replicas) {
  size_t count = 0;
  for (const SlotAssignment& slot : map.slots) {
    std::set<std::string> zones;
    for (const uint32_t node : slot.replicas) {
      if (map.nodes[node].state == NodeState::kLive && !map.nodes[node].draining) {
        zones.insert(map.nodes[node].zone);
      }
    }
    count += zones.size() < replicas ? 1 : 0;
  }
  return count;
}

}  // namespace attic
