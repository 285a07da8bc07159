#include "client/cpp/cluster/replica_calls.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cpp/rpc.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr absl::Duration kBackoffMin = absl::Milliseconds(10);
constexpr absl::Duration kBackoffMax = absl::Milliseconds(250);
// How long a round of kLiveReplicas waits for the slowest.
constexpr absl::Duration kLiveRoundTime = absl::Seconds(1);
constexpr absl::Duration kMapPollInterval = absl::Milliseconds(50);

// One message to one node.
struct Message {
  uint32_t node = 0;
  std::vector<size_t> targets;  // of its calls, in order
  v1::ShardCalls calls;
};

// Where answers arrive; shared with the calls in progress, which may outlast the round.
struct Inbox {
  Mutex mutex;
  CondVar came;
  std::vector<std::optional<absl::StatusOr<v1::ShardResults>>> results ATTIC_GUARDED_BY(mutex);
  size_t missing ATTIC_GUARDED_BY(mutex) = 0;
};

// Whether the node is to be asked again.
bool IsOpen(const ReplicaAnswer& answer) {
  if (answer.not_filled) return answer.live;
  const absl::Status status = answer.answer.status();
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsDeadlineExceeded(status);
}

absl::StatusOr<SessionDescription> ResultOf(const v1::ShardResult& result) {
  ATTIC_RETURN_IF_ERROR(wire::FromWire(result.error()));
  if (!result.has_session()) return SessionDescription();  // of a close
  return wire::FromWire(result.session());
}

class Rounds {
 public:
  Rounds(ClusterCore& core, std::span<const ShardTarget> targets, uint32_t replicas,
         Audience audience, const std::string& prefix_hashes, absl::Time deadline)
      : core_(core),
        targets_(targets),
        replicas_(replicas),
        audience_(audience),
        prefix_hashes_(prefix_hashes),
        deadline_(deadline),
        answers_(targets.size()) {}

  std::vector<ReplicaAnswers> Run() {
    absl::Duration backoff = kBackoffMin;
    for (;;) {
      map_ = core_.directory.map();
      Settle();
      const std::vector<Message> messages = Plan();
      if (messages.empty() && unserved_ == 0) break;
      Send(messages);
      if (absl::Now() >= deadline_) break;
      if (!repeat_ && unserved_ == 0) continue;
      core_.directory.Refresh();
      core_.directory.WaitForNewer(map_->epoch, std::min(deadline_, absl::Now() + backoff));
      backoff = std::min(kBackoffMax, backoff * 2);
    }
    Settle();
    for (ReplicaAnswers& answers : answers_) {
      if (!answers.empty()) continue;
      answers.push_back(
          {.live = true,
           .answer = absl::UnavailableError("no replica of the session is there and up to date")});
    }
    return std::move(answers_);
  }

 private:
  const ReplicaAnswer* Answered(size_t target, const std::string& node_id) const {
    for (const ReplicaAnswer& answer : answers_[target]) {
      if (answer.node_id == node_id && !IsOpen(answer)) return &answer;
    }
    return nullptr;
  }
  bool HasGoodAnswer(size_t target) const {
    return std::any_of(answers_[target].begin(), answers_[target].end(),
                       [](const ReplicaAnswer& answer) { return answer.answer.ok(); });
  }
  bool HasLiveAnswer(size_t target) const {
    return std::any_of(
        answers_[target].begin(), answers_[target].end(), [](const ReplicaAnswer& answer) {
          return answer.live && !answer.joining && !answer.incoming && !IsOpen(answer);
        });
  }

  // Whether the node came back, and has caught up once.
  bool JoinsAgain(const std::string& node_id) const {
    const int64_t node = map_->FindNode(node_id);
    return node >= 0 && map_->nodes[static_cast<size_t>(node)].joining;
  }

  // Says of each answer what the node is in the latest map, and forgets nodes that did not answer
  // and need not any more.
  void Settle() {
    for (size_t t = 0; t < targets_.size(); ++t) {
      const SlotRoute route = RouteOf(*map_, targets_[t].slot, replicas_);
      const auto among = [&](const std::vector<uint32_t>& nodes, const std::string& id) {
        return std::any_of(nodes.begin(), nodes.end(),
                           [&](uint32_t node) { return map_->nodes[node].id == id; });
      };
      std::erase_if(answers_[t], [&](const ReplicaAnswer& answer) {
        // What it could not do when it was still to be filled, it may now.
        return answer.incoming && !answer.answer.ok() && !among(route.incoming, answer.node_id);
      });
      for (ReplicaAnswer& answer : answers_[t]) {
        answer.joining = among(route.joining, answer.node_id) || JoinsAgain(answer.node_id);
        answer.live = answer.joining || among(route.readers, answer.node_id);
        answer.incoming = among(route.incoming, answer.node_id);
      }
      std::erase_if(answers_[t], [&](const ReplicaAnswer& answer) {
        return IsOpen(answer) && !answer.incoming && !answer.joining &&
               !among(route.writers, answer.node_id);
      });
    }
  }

  // What is still to be asked.
  std::vector<Message> Plan() {
    std::map<uint32_t, Message> by_node;
    std::vector<Message> messages;
    unserved_ = 0;
    const auto add = [&](size_t target, uint32_t node) {
      Message& message = by_node[node];
      message.node = node;
      message.targets.push_back(target);
      *message.calls.add_calls() = targets_[target].call;
      if (message.targets.size() < core_.options.limits.shard_calls_max) return;
      messages.push_back(std::move(message));
      by_node.erase(node);
    };
    for (size_t t = 0; t < targets_.size(); ++t) {
      const SlotRoute route = RouteOf(*map_, targets_[t].slot, replicas_);
      if (route.readers.empty() && !HasLiveAnswer(t)) ++unserved_;
      const bool every = audience_ == Audience::kEveryReplica;
      if (!every && HasGoodAnswer(t)) continue;
      std::vector<uint32_t> asked_until_answered = every ? route.writers : route.readers;
      if (every) {
        asked_until_answered.insert(asked_until_answered.end(), route.joining.begin(),
                                    route.joining.end());
      }
      for (const uint32_t node : asked_until_answered) {
        if (Answered(t, map_->nodes[node].id) == nullptr) add(t, node);
      }
      if (!every) continue;
      for (const uint32_t node : route.incoming) {
        const auto asked = [&](const ReplicaAnswer& answer) {
          return answer.node_id == map_->nodes[node].id;
        };
        if (std::none_of(answers_[t].begin(), answers_[t].end(), asked)) add(t, node);
      }
    }
    for (auto& [node, message] : by_node) messages.push_back(std::move(message));
    return messages;
  }

  void Send(const std::vector<Message>& messages) {
    const auto inbox = std::make_shared<Inbox>();
    {
      MutexLock lock(inbox->mutex);
      inbox->results.resize(messages.size());
      inbox->missing = messages.size();
    }
    const absl::Time until = audience_ == Audience::kLiveReplicas
                                 ? std::min(deadline_, absl::Now() + kLiveRoundTime)
                                 : deadline_;
    for (size_t m = 0; m < messages.size(); ++m) {
      v1::ShardCalls calls = messages[m].calls;
      calls.set_epoch(map_->epoch);
      calls.set_prefix_hashes(prefix_hashes_);
      core_.Node(*map_, messages[m].node)
          ->link->CallShards(calls, until, [inbox, m](absl::StatusOr<v1::ShardResults> result) {
            MutexLock lock(inbox->mutex);
            inbox->results[m] = std::move(result);
            --inbox->missing;
            inbox->came.NotifyOne();
          });
    }
    Wait(*inbox, messages, until);
    repeat_ = false;
    MutexLock lock(inbox->mutex);
    for (size_t m = 0; m < messages.size(); ++m) {
      Take(messages[m], inbox->results[m].value_or(absl::StatusOr<v1::ShardResults>(
                            absl::UnavailableError("the node did not answer"))));
    }
  }

  // Until all that may still come has come.
  void Wait(Inbox& inbox, const std::vector<Message>& messages, absl::Time until) {
    MutexLock lock(inbox.mutex);
    while (inbox.missing > 0 && absl::Now() < until) {
      inbox.came.WaitFor(inbox.mutex, WaitTime(std::min(until, absl::Now() + kMapPollInterval)));
      const std::shared_ptr<const ClusterMap> newer = core_.directory.map();
      if (newer->epoch == map_->epoch) continue;
      size_t waited_for = 0;
      for (size_t m = 0; m < messages.size(); ++m) {
        const int64_t node = newer->FindNode(map_->nodes[messages[m].node].id);
        const bool there = node >= 0 && newer->nodes[node].state != NodeState::kDown;
        if (!inbox.results[m].has_value() && there) ++waited_for;
      }
      if (waited_for == 0) return;
    }
  }

  void Take(const Message& message, const absl::StatusOr<v1::ShardResults>& results) {
    if (results.ok()) core_.directory.Saw(results->epoch());
    const ClusterNode& node = map_->nodes[message.node];
    for (size_t i = 0; i < message.targets.size(); ++i) {
      const SlotRoute route = RouteOf(*map_, targets_[message.targets[i]].slot, replicas_);
      const auto among = [&](const std::vector<uint32_t>& nodes) {
        return std::find(nodes.begin(), nodes.end(), message.node) != nodes.end();
      };
      const bool joining = node.joining || among(route.joining);
      ReplicaAnswer answer{.node_id = node.id,
                           .live = joining || node.state == NodeState::kLive,
                           .joining = joining,
                           .incoming = among(route.incoming),
                           .answer = absl::InternalError("the node left a call unanswered")};
      if (!results.ok()) {
        answer.answer = results.status();
      } else if (i < static_cast<size_t>(results->results_size())) {
        const v1::ShardResult& result = results->results(static_cast<int>(i));
        answer.answer = ResultOf(result);
      }
      // A node that is being filled says so of what it does not have yet.
      answer.not_filled = results.ok() && node.state == NodeState::kRepairing &&
                          absl::IsUnavailable(answer.answer.status());
      repeat_ = repeat_ || (!answer.incoming && IsOpen(answer));
      // The latest word of a node counts.
      ReplicaAnswers& answers = answers_[message.targets[i]];
      std::erase_if(answers, [&](const ReplicaAnswer& a) { return a.node_id == node.id; });
      answers.push_back(std::move(answer));
    }
  }

  ClusterCore& core_;
  const std::span<const ShardTarget> targets_;
  const uint32_t replicas_;
  const Audience audience_;
  const std::string& prefix_hashes_;
  const absl::Time deadline_;
  std::shared_ptr<const ClusterMap> map_;
  std::vector<ReplicaAnswers> answers_;
  size_t unserved_ = 0;  // targets without a live replica in map_
  bool repeat_ = false;
};

}  // namespace

std::vector<ReplicaAnswers> CallReplicas(ClusterCore& core, std::span<const ShardTarget> targets,
                                         uint32_t replicas, Audience audience,
                                         const std::string& prefix_hashes, absl::Time deadline) {
  return Rounds(core, targets, replicas, audience, prefix_hashes, deadline).Run();
}

absl::Status AllWell(const ReplicaAnswers& answers, std::span<const absl::StatusCode> ignored) {
  absl::Status first, first_ignored;
  bool well = false;
  for (const ReplicaAnswer& answer : answers) {
    if (!answer.live || answer.incoming) continue;
    const absl::Status status = answer.answer.status();
    const bool ignore = std::find(ignored.begin(), ignored.end(), status.code()) != ignored.end();
    well = well || (status.ok() && !answer.joining);
    (ignore ? first_ignored : first).Update(status);
  }
  if (!first.ok()) return first;
  if (well) return absl::OkStatus();
  if (!first_ignored.ok()) return first_ignored;
  return absl::UnavailableError("no live replica answered");
}

absl::StatusOr<SessionDescription> Furthest(const ReplicaAnswers& answers) {
  const SessionDescription* furthest = nullptr;
  absl::Status first;
  for (const ReplicaAnswer& answer : answers) {
    if (answer.incoming) continue;
    if (!answer.answer.ok()) {
      if (answer.live) first.Update(answer.answer.status());
    } else if (furthest == nullptr || furthest->watermark < answer.answer->watermark) {
      furthest = &*answer.answer;
    }
  }
  if (furthest != nullptr) return *furthest;
  if (!first.ok()) return first;
  return absl::UnavailableError("no live replica answered");
}

}  // namespace attic
