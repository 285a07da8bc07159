// The controller of the model, and what is checked of its maps.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/unit/cluster/placement/cluster_model.h"

namespace attic {
namespace {

// Of the maps, one in so many is checked to be a fixed point.
constexpr uint64_t kFixedPointPeriod = 8;

bool SameSlot(const SlotAssignment& a, const std::vector<uint32_t>& a_numbers,
              const SlotAssignment& b, const std::vector<uint32_t>& b_numbers) {
  const auto same = [&](const std::vector<uint32_t>& x, const std::vector<uint32_t>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                      [&](uint32_t i, uint32_t j) { return a_numbers[i] == b_numbers[j]; });
  };
  return same(a.replicas, b.replicas) && same(a.incoming, b.incoming) &&
         a.incoming_ranks == b.incoming_ranks && a.joining == b.joining;
}

}  // namespace

void ClusterModel::LookAtNodes() {
  view_.now = now_;
  view_.members.clear();
  for (const auto& [id, number] : numbers_) {
    const Node& node = nodes_[number];
    if (!node.up) {
      view_.down_since.emplace(id, now_);
      continue;
    }
    view_.down_since.erase(id);
    view_.members.push_back({.node_id = id,
                             .address = id,
                             .zone = node.zone,
                             .capacity = node.capacity,
                             .boot_id = absl::StrCat(node.boot),
                             .synced_epoch = node.synced_epoch,
                             .node_synced = node.synced,
                             .synced_slots = node.synced_slots});
  }
}

void ClusterModel::Control() {
  LookAtNodes();
  const std::shared_ptr<const KnownMap> before = known_;
  ClusterMap next = next_map_(before->map, view_, options_.placement);
  if (next == before->map) return;
  changed_ = true;
  ++counts_.maps;
  known_ = Known(std::move(next));
  if (counts_.maps % kFixedPointPeriod == 0 &&
      next_map_(map(), view_, options_.placement) != map()) {
    ++counts_.not_fixed;
  }
  CheckMap(*before);
}

void ClusterModel::CheckMap(const KnownMap& before) {
  if (!ValidateClusterMap(map()).ok() || map().epoch != before.map.epoch + 1) {
    ++counts_.invalid_maps;
  }
  size_t incoming = 0;
  for (uint32_t slot = 0; slot < map().slots.size(); ++slot) {
    const SlotAssignment& assignment = map().slots[slot];
    incoming += assignment.incoming.size();
    CheckReplicas(before, slot);
    if (before.map.epoch == 0) continue;
    const SlotAssignment& old = before.map.slots[slot];
    const bool same = SameSlot(old, before.numbers, assignment, known_->numbers);
    if (assignment.epoch != (same ? old.epoch : map().epoch)) ++counts_.invalid_maps;
    if (!same) CheckChange(before, slot);
  }
  if (incoming > options_.placement.incoming_max) ++counts_.over_budget;
}

// Whether an operator removed all replicas, of now and before, that hold a kind as it is.
bool ClusterModel::HoldersRemoved(const KnownMap& before, uint32_t slot, uint32_t kind) const {
  bool any = false;
  for (const KnownMap* known : {&before, known_.get()}) {
    if (known->map.epoch == 0) continue;
    for (const uint32_t index : ReplicasOf(known->map.slots[slot], kind + 1)) {
      const uint32_t number = known->numbers[index];
      if (!Whole(slot, kind, number)) continue;
      if (!nodes_[number].removed) return false;
      any = true;
    }
  }
  return any;
}

// What was written last is lost with who was removed, and cut there should they come back.
void ClusterModel::GiveUp(uint32_t slot, uint32_t kind) {
  ++counts_.losses[kind];
  uint32_t latest = 0;
  for (const uint32_t index : ReplicasOf(map().slots[slot], kind + 1)) {
    const uint32_t number = known_->numbers[index];
    if (!nodes_[number].removed) latest = std::max(latest, VersionOf(slot, kind, number));
  }
  slots_[slot].latest[kind] = latest;
  for (Held& held : slots_[slot].held) {
    held.versions[kind] = std::min(held.versions[kind], latest);
  }
}

// What is live holds what the map says it holds.
void ClusterModel::CheckReplicas(const KnownMap& before, uint32_t slot) {
  const std::vector<uint32_t>& replicas = map().slots[slot].replicas;
  for (uint32_t rank = 0; rank < replicas.size(); ++rank) {
    if (map().nodes[replicas[rank]].state != NodeState::kLive) continue;
    for (uint32_t kind = rank; kind < kKinds; ++kind) {
      if (Whole(slot, kind, known_->numbers[replicas[rank]])) continue;
      // The only replica of such sessions was replaced while it was down: CheckChange judges that.
      if (kind + 1 < options_.placement.replicas_default && !HasWhole(*known_, slot, kind)) {
        continue;
      }
      if (HoldersRemoved(before, slot, kind)) {
        GiveUp(slot, kind);
        continue;
      }
      ++counts_.hollow_replicas;
    }
  }
}

void ClusterModel::CheckChange(const KnownMap& before, uint32_t slot) {
  const std::vector<uint32_t>& old = before.map.slots[slot].replicas;
  const std::vector<uint32_t>& replicas = map().slots[slot].replicas;
  const auto left = [&](uint32_t index) {
    const Node& node = nodes_[before.numbers[index]];
    return !node.up || node.draining || node.removed;
  };
  for (uint32_t rank = 0; rank < replicas.size(); ++rank) {
    Node& node = nodes_[known_->numbers[replicas[rank]]];
    if (rank < old.size() && before.numbers[old[rank]] == known_->numbers[replicas[rank]]) continue;
    if (rank < old.size() && !left(old[rank])) continue;
    counts_.moved_least += BytesOfRank(rank);
    node.bytes_in_place += BytesOfRank(rank);
  }
  for (uint32_t kind = 0; kind < kKinds; ++kind) {
    if (!HasWhole(before, slot, kind) || HasWhole(*known_, slot, kind)) continue;
    bool explained = true;
    for (const uint32_t index : ReplicasOf(before.map.slots[slot], kind + 1)) {
      const uint32_t number = before.numbers[index];
      if (!Whole(slot, kind, number)) continue;
      // An operator said so; or it is the only replica, and down for long.
      const bool alone = kind + 1 < options_.placement.replicas_default;
      explained = explained && !nodes_[number].up && (nodes_[number].removed || alone);
    }
    if (!explained) ++counts_.copies_given_up;
    Lose(slot, kind, explained);
  }
}

void ClusterModel::CheckHolders() {
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    for (uint32_t kind = 0; kind < kKinds; ++kind) {
      const std::span<const uint32_t> replicas = ReplicasOf(map().slots[slot], kind + 1);
      const bool whole = std::all_of(replicas.begin(), replicas.end(), [&](uint32_t index) {
        return Serves(*known_, index) && Whole(slot, kind, known_->numbers[index]);
      });
      absl::Time& since = slots_[slot].degraded_since[kind];
      since = whole && replicas.size() > kind ? absl::InfiniteFuture() : std::min(since, now_);
    }
  }
}

uint64_t ClusterModel::Incomplete() const {
  uint64_t count = 0;
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    for (uint32_t kind = 0; kind < kKinds; ++kind) {
      const std::span<const uint32_t> replicas = ReplicasOf(map().slots[slot], kind + 1);
      const bool whole = std::all_of(replicas.begin(), replicas.end(), [&](uint32_t index) {
        return map().nodes[index].state == NodeState::kLive &&
               Whole(slot, kind, known_->numbers[index]);
      });
      count += whole && replicas.size() > kind ? 0 : 1;
    }
  }
  return count;
}

// The sessions are gone; others take their place, which hold nothing yet.
void ClusterModel::Lose(uint32_t slot, uint32_t kind, bool explained) {
  ++counts_.losses[kind];
  if (!explained) ++counts_.losses_unexplained;
  slots_[slot].latest[kind] = 0;
  for (Held& held : slots_[slot].held) held.versions[kind] = 0;
}

}  // namespace attic
