#include "tests/unit/cluster/placement/cluster_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace attic {
namespace {

// Of the cost of a fill, where the node has an older version.
constexpr double kCatchUp = 0.2;
// How long repair may take, in steps, when data is lost for want of it.
constexpr int kRepairSteps = 120;

}  // namespace

double BytesOfKind(uint32_t kind) {
  constexpr double kBytes[] = {0.2, 1.0, 0.3};
  return kBytes[kind];
}

double BytesOfRank(uint32_t rank) {
  double bytes = 0;
  for (uint32_t kind = rank; kind < kReplicasMax; ++kind) bytes += BytesOfKind(kind);
  return bytes;
}

ClusterModel::ClusterModel(const ModelOptions& options, NextMapFunction next_map)
    : options_(options), next_map_(std::move(next_map)), random_(options.seed) {
  for (uint32_t i = 0; i < options.nodes; ++i) {
    const std::string id = absl::StrFormat("n%05d", i);
    numbers_.emplace(id, i);
    nodes_.push_back({.id = id,
                      .zone = absl::StrCat("z", i % options.zones),
                      .capacity = uint64_t{1} << (random_() % 3)});
  }
  slots_.resize(options.placement.slots);
  for (Slot& slot : slots_) slot.degraded_since.fill(absl::InfiniteFuture());
  known_ = Known({});
  Control();
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    for (uint32_t kind = 0; kind < kKinds; ++kind) WriteTo(slot, kind);
  }
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    nodes_[node].bytes_at_start = BytesOf(node);
  }
}

std::shared_ptr<const ClusterModel::KnownMap> ClusterModel::Known(ClusterMap map) const {
  auto known = std::make_shared<KnownMap>();
  known->indices.assign(nodes_.size(), -1);
  for (uint32_t index = 0; index < map.nodes.size(); ++index) {
    known->numbers.push_back(numbers_.at(map.nodes[index].id));
    known->indices[known->numbers.back()] = index;
  }
  known->tasks.resize(map.nodes.size());
  for (uint32_t slot = 0; slot < map.slots.size(); ++slot) {
    const SlotAssignment& assignment = map.slots[slot];
    for (uint32_t rank = 0; rank < assignment.replicas.size(); ++rank) {
      // A live node has what it is a replica of.
      if (map.nodes[assignment.replicas[rank]].state == NodeState::kLive) continue;
      known->tasks[assignment.replicas[rank]].push_back({slot, rank, false});
    }
    for (size_t i = 0; i < assignment.incoming.size(); ++i) {
      known->tasks[assignment.incoming[i]].push_back({slot, IncomingRank(assignment, i), true});
    }
  }
  known->map = std::move(map);
  return known;
}

void ClusterModel::Fail(const std::string& id, Failure failure) {
  const uint32_t number = numbers_.at(id);
  EndLife(number);
  Node& node = nodes_[number];
  node.up = false;
  changed_ = true;
  if (failure != Failure::kCutOff) {
    ++node.boot;
    node.synced_epoch = 0;
    node.synced = false;
    node.synced_slots.clear();
    node.known = nullptr;
  }
  if (failure != Failure::kDiskLost) return;
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    Slot& of_slot = slots_[slot];
    if (std::erase_if(of_slot.held, [&](const Held& held) { return held.node == number; }) == 0) {
      continue;
    }
    for (uint32_t kind = 0; kind < kKinds; ++kind) {
      if (of_slot.latest[kind] == 0 || HasWhole(*known_, slot, kind)) continue;
      // With one replica there is no other; else there was no time to make one.
      const absl::Duration time = options_.placement.replace_after + options_.step * kRepairSteps;
      Lose(slot, kind, kind == 0 || now_ - of_slot.degraded_since[kind] <= time);
    }
  }
}

void ClusterModel::Return(const std::string& id) {
  Node& node = NodeOf(id);
  node.up = true;
  node.bytes_at_start = BytesOf(numbers_.at(id));
  changed_ = true;
}

std::string ClusterModel::Add(const std::string& zone, uint64_t capacity) {
  const std::string id = absl::StrFormat("%c%05d", 'a' + random_() % 26, added_++);
  numbers_.emplace(id, static_cast<uint32_t>(nodes_.size()));
  nodes_.push_back({.id = id, .zone = zone, .capacity = capacity});
  changed_ = true;
  return id;
}

void ClusterModel::Drain(const std::string& id) {
  EndLife(numbers_.at(id));
  NodeOf(id).draining = true;
  view_.draining.insert(id);
  changed_ = true;
}

void ClusterModel::Remove(const std::string& id) {
  NodeOf(id).removed = true;
  view_.removed.insert(id);
  changed_ = true;
}

std::vector<std::string> ClusterModel::UpNodes() const {
  std::vector<std::string> ids;
  for (const Node& node : nodes_) {
    if (node.up && !node.draining && !node.removed) ids.push_back(node.id);
  }
  return ids;
}

std::vector<std::string> ClusterModel::FailedNodes() const {
  std::vector<std::string> ids;
  for (const Node& node : nodes_) {
    if (!node.up && !node.removed) ids.push_back(node.id);
  }
  return ids;
}

std::vector<std::string> ClusterModel::NodesOfZone(const std::string& zone) const {
  std::vector<std::string> ids;
  for (const Node& node : nodes_) {
    if (node.zone == zone && !node.removed) ids.push_back(node.id);
  }
  return ids;
}

// Reached by clients, as the process that the map means.
bool ClusterModel::Serves(const KnownMap& known, uint32_t index) const {
  const Node& node = nodes_[known.numbers[index]];
  return node.up && known.map.nodes[index].boot_id == absl::StrCat(node.boot);
}

uint32_t ClusterModel::VersionOf(uint32_t slot, uint32_t kind, uint32_t node) const {
  for (const Held& held : slots_[slot].held) {
    if (held.node == node) return held.versions[kind];
  }
  return 0;
}

ClusterModel::Versions& ClusterModel::HeldBy(uint32_t slot, uint32_t node) {
  for (Held& held : slots_[slot].held) {
    if (held.node == node) return held.versions;
  }
  return slots_[slot].held.emplace_back(Held{.node = node}).versions;
}

bool ClusterModel::Whole(uint32_t slot, uint32_t kind, uint32_t node) const {
  return VersionOf(slot, kind, node) == slots_[slot].latest[kind];
}

bool ClusterModel::HasWhole(const KnownMap& known, uint32_t slot, uint32_t kind) const {
  const std::span<const uint32_t> replicas = ReplicasOf(known.map.slots[slot], kind + 1);
  return std::any_of(replicas.begin(), replicas.end(),
                     [&](uint32_t index) { return Whole(slot, kind, known.numbers[index]); });
}

double ClusterModel::BytesOf(uint32_t node) const {
  double bytes = 0;
  if (node >= known_->indices.size()) return bytes;
  const int64_t index = known_->indices[node];
  for (const SlotAssignment& slot : map().slots) {
    for (uint32_t rank = 0; rank < slot.replicas.size(); ++rank) {
      if (slot.replicas[rank] == index) bytes += BytesOfRank(rank);
    }
  }
  return bytes;
}

// A node has to get at least its share, less what balance allows and less what it got anyway.
void ClusterModel::EndLife(uint32_t number) {
  Node& node = nodes_[number];
  double capacity = 0;
  for (const Node& other : nodes_) {
    if (other.up && !other.draining) capacity += static_cast<double>(other.capacity);
  }
  const double bytes = BytesOf(number);
  const double share = static_cast<double>(slots_.size()) * static_cast<double>(node.capacity) /
                       capacity * (BytesOfRank(0) + BytesOfRank(1) + BytesOfRank(2));
  const double least = std::min(bytes, share * (1 - options_.placement.imbalance_max));
  counts_.moved_least += std::max(0.0, least - node.bytes_at_start - node.bytes_in_place);
  node.bytes_at_start = bytes;
  node.bytes_in_place = 0;
}

void ClusterModel::FinishLives() {
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].up && !nodes_[node].draining) EndLife(node);
  }
}

void ClusterModel::Step() {
  now_ += options_.step;
  ++counts_.steps;
  const double writes = options_.writes_per_slot * static_cast<double>(slots_.size());
  for (uint32_t i = 0; i < static_cast<uint32_t>(writes); ++i) {
    WriteTo(static_cast<uint32_t>(random_() % slots_.size()),
            static_cast<uint32_t>(random_() % kKinds));
  }
  Repair();
  Control();
  CheckHolders();
}

bool ClusterModel::Heal(int steps_max) {
  int quiet = 0;
  for (int i = 0; i < steps_max; ++i) {
    changed_ = false;
    Step();
    quiet = changed_ ? 0 : quiet + 1;
    const bool waits =
        std::any_of(map().nodes.begin(), map().nodes.end(),
                    [](const ClusterNode& node) { return node.state == NodeState::kRepairing; });
    const bool fills =
        std::any_of(map().slots.begin(), map().slots.end(),
                    [](const SlotAssignment& slot) { return !slot.incoming.empty(); });
    // Longer than replace_after: nothing is going to change by itself.
    if (!waits && !fills && quiet * options_.step > options_.placement.replace_after) return true;
  }
  return false;
}

// Acknowledged by all that the map does not call down and that have what was written before.
void ClusterModel::WriteTo(uint32_t slot, uint32_t kind) {
  const SlotAssignment& assignment = map().slots[slot];
  bool live = false;
  bool refused = false;
  for (const uint32_t index : ReplicasOf(assignment, kind + 1)) {
    const NodeState state = map().nodes[index].state;
    live = live || state == NodeState::kLive;
    refused = refused || (state != NodeState::kDown && !Serves(*known_, index));
  }
  ++counts_.writes;
  if (refused || !live) {
    ++counts_.writes_refused;
    return;
  }
  const uint32_t before = slots_[slot].latest[kind]++;
  const auto append = [&](uint32_t index) {
    if (map().nodes[index].state == NodeState::kDown || !Serves(*known_, index)) return;
    uint32_t& held = HeldBy(slot, known_->numbers[index])[kind];
    if (held == before) ++held;
  };
  for (const uint32_t index : ReplicasOf(assignment, kind + 1)) append(index);
  for (size_t i = 0; i < assignment.incoming.size(); ++i) {
    if (IncomingRank(assignment, i) <= kind) append(assignment.incoming[i]);
  }
}

void ClusterModel::Repair() {
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (!nodes_[node].up) continue;
    // News takes a step at times.
    if (nodes_[node].known == nullptr || random_() % 5 != 0) nodes_[node].known = known_;
    RepairNode(node);
  }
}

void ClusterModel::RepairNode(uint32_t number) {
  Node& node = nodes_[number];
  const KnownMap& known = *node.known;
  if (number >= known.indices.size() || known.indices[number] < 0) return;
  const uint32_t index = static_cast<uint32_t>(known.indices[number]);
  node.credit =
      std::min(node.credit, 1.0) + options_.fills_per_second * absl::ToDoubleSeconds(options_.step);
  node.synced_slots.clear();
  node.synced_epoch = known.map.epoch;
  node.synced = known.map.nodes[index].boot_id == absl::StrCat(node.boot);
  for (const Task& task : known.tasks[index]) {
    const bool filled = Fill(number, task);
    if (task.incoming && filled) node.synced_slots.insert(task.slot);
    if (!task.incoming && !filled) node.synced = false;
  }
}

bool ClusterModel::Fill(uint32_t number, const Task& task) {
  Node& node = nodes_[number];
  bool filled = true;
  for (uint32_t kind = task.rank; kind < kKinds; ++kind) {
    const int64_t version = Source(*node.known, number, task, kind);
    const uint32_t held = VersionOf(task.slot, kind, number);
    if (held >= version && version >= 0) continue;
    const double cost = held == 0 ? 1 : kCatchUp;
    if (version < 0 || node.credit < cost) {
      filled = false;
      continue;
    }
    node.credit -= cost;
    if (task.incoming) counts_.moved += BytesOfKind(kind) * cost;
    HeldBy(task.slot, number)[kind] = static_cast<uint32_t>(version);
  }
  return filled;
}

// Of which version a node can get the kind; -1 where it has to wait.
int64_t ClusterModel::Source(const KnownMap& known, uint32_t number, const Task& task,
                             uint32_t kind) const {
  int64_t live = -1;
  int64_t best = 0;
  bool all_there = true;
  bool others_down = true;
  for (const uint32_t index : ReplicasOf(known.map.slots[task.slot], kind + 1)) {
    if (!Serves(known, index)) {
      all_there = all_there && nodes_[known.numbers[index]].removed;
      others_down = others_down && known.map.nodes[index].state == NodeState::kDown;
      continue;
    }
    const int64_t version = VersionOf(task.slot, kind, known.numbers[index]);
    best = std::max(best, version);
    if (known.map.nodes[index].state == NodeState::kLive && known.numbers[index] != number) {
      live = std::max(live, version);
    }
  }
  if (live >= 0) return live;
  // Without a live one, what all of them hold together is all there is; and sessions of fewer
  // replicas than usual are not waited for where the map says that who had them is down.
  const bool given_up =
      task.incoming && others_down && kind + 1 < options_.placement.replicas_default;
  return all_there || given_up ? best : -1;
}

}  // namespace attic
