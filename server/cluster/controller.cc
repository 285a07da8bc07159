#include "server/cluster/controller.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "server/cluster/peer_map.h"

namespace attic {

bool Controller::Elected(const ControllerInput& input) const {
  const auto& controller = input.observed.controller();
  return controller.has_value() && controller->node_id == options_.node_id &&
         controller->lease == input.lease;
}

void Controller::StandForElection(int64_t lease) {
  client_
      .Commit({.compares = {{.target = EtcdCompare::Target::kCreateRevision,
                             .key = keys_.Controller(),
                             .number = 0}},
               .puts = {{.key = keys_.Controller(), .value = options_.node_id, .lease = lease}}})
      .IgnoreError();
}

void Controller::EndElection(const ObservedController& controller) {
  client_
      .Commit({.compares = {{.target = EtcdCompare::Target::kCreateRevision,
                             .key = keys_.Controller(),
                             .number = controller.create_revision}},
               .deletes = {keys_.Controller()}})
      .IgnoreError();
}

ClusterView Controller::View(const ControllerInput& input, const ClusterMap& base) {
  ClusterView view = input.observed.View(input.now);
  const auto registered = [&](const std::string& node_id) {
    return input.observed.members().count(node_id) > 0;
  };
  const auto gone = [&](const ClusterNode& node) {
    const auto found = input.gone.find(node.id);
    return found != input.gone.end() && found->second == node.boot_id;
  };
  const bool trusted = input.now >= input.trusted_since + options_.grace;
  for (const ClusterNode& node : base.nodes) {
    if (registered(node.id)) {
      down_since_.erase(node.id);
    } else if (!trusted && !gone(node) && node.state != NodeState::kDown &&
               input.observed.leaving().count(node.id) == 0) {
      view.members.push_back({.node_id = node.id,
                              .address = node.address,
                              .zone = node.zone,
                              .capacity = node.capacity,
                              .boot_id = node.boot_id});
    } else {
      down_since_.try_emplace(node.id, input.now);
    }
  }
  std::erase_if(down_since_, [&](const auto& down) { return base.FindNode(down.first) < 0; });
  std::sort(view.members.begin(), view.members.end(),
            [](const Member& a, const Member& b) { return a.node_id < b.node_id; });
  view.down_since = down_since_;
  return view;
}

ControllerStep Controller::PutMap(const ControllerInput& input, ClusterMapPtr map) {
  ControllerStep step{.controlling = true};
  const auto put =
      client_.Commit({.compares = {{.target = EtcdCompare::Target::kCreateRevision,
                                    .key = keys_.Controller(),
                                    .number = input.observed.controller()->create_revision},
                                   {.target = EtcdCompare::Target::kModRevision,
                                    .key = keys_.Map(),
                                    .number = input.observed.map_revision()}},
                      .puts = {{.key = keys_.Map(), .value = EncodeMap(*map)}}});
  if (!put.ok() || !put->succeeded) return step;
  step.map = std::move(map);
  step.map_revision = put->revision;
  return step;
}

ClusterMapPtr Controller::Base(const ControllerInput& input) const {
  ClusterMapPtr base = input.observed.map();
  const auto take_newer = [&](const ClusterMapPtr& other) {
    if (EpochOf(other) > EpochOf(base)) base = other;
  };
  take_newer(input.known);
  if (!controlling_) return base;
  if (EpochOf(base) < input.observed.EpochOfMembers()) {
    std::vector<std::string> addresses;
    for (const auto& [node_id, member] : input.observed.members()) {
      if (input.observed.EpochOfMember(node_id) <= EpochOf(base)) continue;
      addresses.push_back(member.address);
    }
    take_newer(newest_of_(addresses, EpochOf(base)));
  }
  if (base != nullptr && base != input.observed.map()) {
    take_newer(newest_of_(AddressesOfPeers(*base, options_.node_id), EpochOf(base)));
  }
  return base;
}

std::shared_ptr<ClusterMap> Controller::Next(const ControllerInput& input, ClusterMapPtr base) {
  if (base == nullptr) {
    if (input.observed.members().size() < options_.initial_nodes ||
        input.now < input.trusted_since + options_.first_map_wait) {
      return nullptr;
    }
    ClusterMap none;
    none.cluster = options_.cluster;
    base = std::make_shared<const ClusterMap>(std::move(none));
  }
  auto next = std::make_shared<ClusterMap>(NextMap(*base, View(input, *base), options_.placement));
  if (next->epoch == base->epoch) {
    if (base->epoch == 0 || base == input.observed.map()) return nullptr;
    // Put back, as a later one: maps in etcd never have an epoch twice.
    next->epoch += 1;
  }
  return next;
}

ControllerStep Controller::Step(const ControllerInput& input) {
  const auto& controller = input.observed.controller();
  controlling_ = input.lease != 0 && Elected(input);
  if (input.lease == 0) return {};
  ClusterMapPtr base = Base(input);
  const bool behind = EpochOf(base) < input.observed.EpochOfMembers();
  if (!controller.has_value() && !behind) StandForElection(input.lease);
  if (!controlling_ || behind) {
    // Also of an earlier process of this node, or of a lease it lost: nobody would be elected
    // before that ends, and nobody can tell that its owner does not use it any more.
    if (controller.has_value() && controller->node_id == options_.node_id) {
      EndElection(*controller);
    }
    // Whoever was away knows nothing of when nodes went.
    down_since_.clear();
    controlling_ = false;
    return {};
  }
  auto next = Next(input, std::move(base));
  if (next == nullptr) return {.controlling = true};
  return PutMap(input, std::move(next));
}

}  // namespace attic
