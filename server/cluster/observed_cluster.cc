#include "server/cluster/observed_cluster.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "attic/v1/cluster.pb.h"
#include "base/check.h"
#include "wire/convert_cluster.h"

namespace attic {
namespace {

constexpr char kDrain[] = "drain";
constexpr char kRemove[] = "remove";

// What follows `folder` in `key`; none when the key is not below it.
std::optional<std::string> Below(const std::string& key, const std::string& folder) {
  if (!key.starts_with(folder)) return std::nullopt;
  return key.substr(folder.size());
}

std::optional<Member> MemberOf(const v1::NodeRegistration& registration) {
  const v1::ClusterNode& node = registration.node();
  if (node.id().empty() || node.address().empty()) return std::nullopt;
  return Member{.node_id = node.id(),
                .address = node.address(),
                .zone = node.zone(),
                .capacity = node.capacity(),
                .boot_id = node.boot_id()};
}

uint64_t DecodeNumber(const std::string& text) {
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

std::string EncodeRegistration(const Member& member, bool leaving, const KnownEpochs& known) {
  v1::NodeRegistration registration;
  *registration.mutable_node() = wire::ToWire(ClusterNode{.id = member.node_id,
                                                          .address = member.address,
                                                          .zone = member.zone,
                                                          .capacity = member.capacity,
                                                          .boot_id = member.boot_id});
  registration.set_leaving(leaving);
  registration.set_map_epoch(known.map);
  registration.set_saved_epoch(known.saved);
  return registration.SerializeAsString();
}

std::string EncodeReport(const SyncReport& report, const std::string& boot_id) {
  v1::SyncReport out;
  out.set_boot_id(boot_id);
  out.set_epoch(report.epoch);
  out.set_node_synced(report.node_synced);
  out.mutable_slots()->Assign(report.slots.begin(), report.slots.end());
  return out.SerializeAsString();
}

std::string EncodeMap(const ClusterMap& map) { return wire::ToWire(map).SerializeAsString(); }

std::string EncodeChange(NodeChange change) {
  ATTIC_CHECK(change == NodeChange::kDrain || change == NodeChange::kRemove);
  return change == NodeChange::kDrain ? kDrain : kRemove;
}

void ObservedCluster::Reset(const EtcdEntries& entries) {
  members_.clear();
  registrations_.clear();
  leaving_.clear();
  reports_.clear();
  draining_.clear();
  removed_.clear();
  rebalance_ = 0;
  controller_.reset();
  map_ = nullptr;
  map_revision_ = 0;
  for (const EtcdKeyValue& entry : entries.entries) Put(entry);
}

void ObservedCluster::Apply(const EtcdEvent& event) {
  if (event.deleted) {
    Delete(event.entry.key);
  } else {
    Put(event.entry);
  }
}

void ObservedCluster::SetMap(ClusterMapPtr map, int64_t revision) {
  if (revision <= map_revision_) return;
  map_ = std::move(map);
  map_revision_ = revision;
}

uint64_t ObservedCluster::EpochOfMember(const std::string& node_id) const {
  const auto found = registrations_.find(node_id);
  if (found == registrations_.end()) return 0;
  const KnownEpochs& known = found->second.known;
  return map_ == nullptr ? std::max(known.map, known.saved) : known.map;
}

uint64_t ObservedCluster::EpochOfMembers() const {
  uint64_t epoch = 0;
  for (const auto& [node_id, member] : members_) epoch = std::max(epoch, EpochOfMember(node_id));
  return epoch;
}

void ObservedCluster::PutNode(const std::string& node_id, const EtcdKeyValue& entry) {
  members_.erase(node_id);
  registrations_.erase(node_id);
  leaving_.erase(node_id);
  v1::NodeRegistration registration;
  if (!registration.ParseFromString(entry.value)) return;
  const std::optional<Member> member = MemberOf(registration);
  if (!member.has_value() || member->node_id != node_id) return;
  if (registration.leaving()) {
    leaving_.insert(node_id);
  } else {
    members_[node_id] = *member;
    registrations_[node_id] = {
        .create_revision = entry.create_revision,
        .mod_revision = entry.mod_revision,
        .lease = entry.lease,
        .known = {.map = registration.map_epoch(), .saved = registration.saved_epoch()}};
  }
}

void ObservedCluster::Put(const EtcdKeyValue& entry) {
  if (const auto node = Below(entry.key, keys_.Node(""))) {
    PutNode(*node, entry);
  } else if (const auto synced = Below(entry.key, keys_.Synced(""))) {
    v1::SyncReport report;
    if (!report.ParseFromString(entry.value)) return Delete(entry.key);
    reports_[*synced] = {.boot_id = report.boot_id(),
                         .report = {.epoch = report.epoch(),
                                    .node_synced = report.node_synced(),
                                    .slots = {report.slots().begin(), report.slots().end()}}};
  } else if (const auto change = Below(entry.key, keys_.Change(""))) {
    Delete(entry.key);
    if (entry.value == kDrain) draining_.insert(*change);
    if (entry.value == kRemove) removed_.insert(*change);
  } else if (entry.key == keys_.Controller()) {
    controller_ = ObservedController{
        .node_id = entry.value, .create_revision = entry.create_revision, .lease = entry.lease};
  } else if (entry.key == keys_.Rebalance()) {
    rebalance_ = DecodeNumber(entry.value);
  } else if (entry.key == keys_.Map()) {
    v1::ClusterMap map;
    absl::StatusOr<ClusterMap> decoded = absl::DataLossError("map");
    if (map.ParseFromString(entry.value)) decoded = wire::FromWire(map);
    SetMap(decoded.ok() ? std::make_shared<const ClusterMap>(*std::move(decoded)) : nullptr,
           entry.mod_revision);
  }
}

void ObservedCluster::Delete(const std::string& key) {
  if (const auto node = Below(key, keys_.Node(""))) {
    members_.erase(*node);
    registrations_.erase(*node);
    leaving_.erase(*node);
  } else if (const auto synced = Below(key, keys_.Synced(""))) {
    reports_.erase(*synced);
  } else if (const auto change = Below(key, keys_.Change(""))) {
    draining_.erase(*change);
    removed_.erase(*change);
  } else if (key == keys_.Controller()) {
    controller_.reset();
  } else if (key == keys_.Rebalance()) {
    rebalance_ = 0;
  } else if (key == keys_.Map()) {
    map_ = nullptr;
    map_revision_ = 0;
  }
}

ClusterView ObservedCluster::View(absl::Time now) const {
  ClusterView view{.now = now, .draining = draining_, .removed = removed_, .rebalance = rebalance_};
  for (const auto& [node_id, registered] : members_) {
    Member member = registered;
    const auto said = reports_.find(node_id);
    if (said != reports_.end() && said->second.boot_id == member.boot_id) {
      const SyncReport& report = said->second.report;
      member.synced_epoch = report.epoch;
      member.node_synced = report.node_synced;
      member.synced_slots = {report.slots.begin(), report.slots.end()};
    }
    view.members.push_back(std::move(member));
  }
  return view;
}

}  // namespace attic
