#include "server/cluster/accuser.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace attic {
namespace {

// Times of what was found must not jump with the wall clock.
absl::Time MonotonicNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

Accuser::Accuser(EtcdClient& client, AccuserOptions options, std::function<void()> on_found)
    : client_(client),
      node_id_(std::move(options.node_id)),
      keys_(options.cluster),
      on_found_(std::move(on_found)),
      probe_(std::move(options.probe), [this](const ProbeTarget& target) { OnGone(target); }) {}

void Accuser::Observe(const ControllerInput& input) {
  Remember(input);
  const auto& registrations = input.observed.registrations();
  {
    MutexLock lock(mutex_);
    controller_ = input.observed.controller();
    std::erase_if(evidence_, [&](const auto& found) {
      const auto now_registered = registrations.find(found.first);
      return input.now > found.second.found + kEvidenceTime ||
             (now_registered != registrations.end() &&
              now_registered->second.mod_revision != found.second.registration);
    });
  }
  probe_.SetTargets(Targets(input));
}

void Accuser::Remember(const ControllerInput& input) {
  const auto& registrations = input.observed.registrations();
  for (const auto& [node_id, registration] : registrations) {
    const std::string& boot_id = input.observed.members().at(node_id).boot_id;
    History& history = histories_[node_id];
    if (history.boot_id != boot_id) {
      history = {.boot_id = boot_id};
    } else if (history.lease == registration.lease &&
               history.create_revision != registration.create_revision) {
      // Somebody deleted it although the process lives: with a lease that ends, the lease changes.
      const absl::Duration pause = kLeftAloneMin * std::exp2(history.returns++);
      history.left_alone_until = input.now + std::min(pause, kLeftAloneMax);
    }
    history.create_revision = registration.create_revision;
    history.lease = registration.lease;
  }
  std::erase_if(histories_, [&](const auto& history) {
    return registrations.count(history.first) == 0 &&
           (input.known == nullptr || input.known->FindNode(history.first) < 0);
  });
}

bool Accuser::LeftAlone(const std::string& node_id, absl::Time now) const {
  const auto history = histories_.find(node_id);
  return history != histories_.end() && now < history->second.left_alone_until;
}

std::vector<ProbeTarget> Accuser::Targets(const ControllerInput& input) const {
  const ObservedCluster& observed = input.observed;
  const double others = std::max(1.0, static_cast<double>(observed.members().size()) - 1);
  const auto& controller = observed.controller();
  const bool may_accuse = controller.has_value() && input.lease != 0;
  const bool controlling =
      may_accuse && controller->node_id == node_id_ && controller->lease == input.lease;
  const absl::Duration often = std::max(kPeriod, absl::Seconds(others / kConnectionsPerSecondMax));
  std::vector<ProbeTarget> targets;
  for (const auto& [node_id, member] : observed.members()) {
    if (node_id == node_id_) continue;
    ProbeTarget target{.node_id = node_id,
                       .address = member.address,
                       .boot_id = member.boot_id,
                       .registration = observed.registrations().at(node_id).mod_revision,
                       .period = absl::Seconds(others / kFirstConnectionsPerSecond),
                       .until_accepted = true};
    const bool watched = may_accuse && (controlling || controller->node_id == node_id);
    if (watched && !LeftAlone(node_id, input.now)) {
      target.until_accepted = false;
      target.period = controlling ? often : kPeriod * std::max(1.0, others / kWatchersOfController);
    }
    targets.push_back(std::move(target));
  }
  AddMissing(input, often, !controlling, targets);
  return targets;
}

void Accuser::AddMissing(const ControllerInput& input, absl::Duration period, bool until_accepted,
                         std::vector<ProbeTarget>& targets) const {
  if (input.known == nullptr) return;
  // That they are not registered means nothing for a while after etcd was away (controller.h);
  // unless nothing listens there any more. What is known of them has to outlast an election.
  for (const ClusterNode& node : input.known->nodes) {
    if (node.id == node_id_ || node.state == NodeState::kDown ||
        input.observed.members().count(node.id) > 0 ||
        input.observed.leaving().count(node.id) > 0) {
      continue;
    }
    targets.push_back({.node_id = node.id,
                       .address = node.address,
                       .boot_id = node.boot_id,
                       .period = period,
                       .until_accepted = until_accepted || LeftAlone(node.id, input.now)});
  }
}

EtcdTransaction Accuser::Deletion(const ProbeTarget& target,
                                  const ObservedController& controller) const {
  EtcdTransaction transaction;
  transaction.compares = {{.target = EtcdCompare::Target::kModRevision,
                           .key = keys_.Node(target.node_id),
                           .number = target.registration},
                          {.target = EtcdCompare::Target::kCreateRevision,
                           .key = keys_.Controller(),
                           .number = controller.create_revision}};
  transaction.deletes = {keys_.Node(target.node_id)};
  if (controller.node_id == target.node_id) transaction.deletes.push_back(keys_.Controller());
  return transaction;
}

void Accuser::OnGone(const ProbeTarget& target) {
  std::optional<ObservedController> controller;
  {
    MutexLock lock(mutex_);
    controller = controller_;
  }
  // Between two elections nobody accuses.
  if (!controller.has_value() ||
      (controller->node_id != node_id_ && controller->node_id != target.node_id)) {
    return;
  }
  if (target.registration != 0) {
    const auto deleted = client_.Commit(Deletion(target, *controller));
    if (!deleted.ok() || !deleted->succeeded) return;
    ++accusations_;
  }
  {
    MutexLock lock(mutex_);
    evidence_[target.node_id] = {
        .boot_id = target.boot_id, .registration = target.registration, .found = MonotonicNow()};
  }
  on_found_();
}

std::map<std::string, std::string> Accuser::gone() const {
  std::map<std::string, std::string> gone;
  MutexLock lock(mutex_);
  for (const auto& [node_id, found] : evidence_) gone[node_id] = found.boot_id;
  return gone;
}

}  // namespace attic
