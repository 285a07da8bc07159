#include "server/cluster/controller.h"

#include <algorithm>
#include <memory>
#include <utility>

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

void Controller::EndEarlierElection(const ObservedController& controller) {
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

ControllerStep Controller::Step(const ControllerInput& input) {
  controlling_ = input.lease != 0 && Elected(input);
  if (input.lease == 0) return {};
  if (!input.observed.controller().has_value()) StandForElection(input.lease);
  if (!controlling_) {
    const auto& controller = input.observed.controller();
    // Of an earlier process of this node, or of a lease it lost: nobody would be elected before
    // that ends, and nobody can tell that its owner does not use it any more.
    if (controller.has_value() && controller->node_id == options_.node_id) {
      EndEarlierElection(*controller);
    }
    // Whoever was away knows nothing of when nodes went.
    down_since_.clear();
    return {};
  }

  // etcd may have lost the map, or have an older one from a copy.
  ClusterMapPtr base = input.observed.map();
  const auto take_newer = [&](const ClusterMapPtr& other) {
    if (other != nullptr && (base == nullptr || other->epoch > base->epoch)) base = other;
  };
  take_newer(input.known);
  if (base != nullptr && base != input.observed.map()) take_newer(newest_of_peers_(*base));
  if (base == nullptr) {
    if (input.observed.members().size() < options_.initial_nodes) return {.controlling = true};
    ClusterMap none;
    none.cluster = options_.cluster;
    base = std::make_shared<const ClusterMap>(std::move(none));
  }
  auto next = std::make_shared<ClusterMap>(NextMap(*base, View(input, *base), options_.placement));
  if (next->epoch == base->epoch) {
    if (base->epoch == 0 || base == input.observed.map()) return {.controlling = true};
    // Put back, as a later one: maps in etcd never have an epoch twice.
    next->epoch += 1;
  }
  return PutMap(input, std::move(next));
}

}  // namespace attic
