#include "client/cpp/cluster/cluster_overview.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cpp/rpc.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr uint32_t kListPageSize = 1000;
// Between a shard's id and anything that may follow its session in order of id: '#' comes before
// all that ids may contain.
constexpr char kBehindShards = kShardSeparator + 1;
constexpr size_t kPlansAtOnce = 64;
constexpr absl::Duration kNodeTime = absl::Seconds(2);

// Waits for one answer.
template <typename Response, typename Start>
absl::StatusOr<Response> Await(absl::Time deadline, Start start) {
  struct Answer {
    Mutex mutex;
    CondVar came;
    std::optional<absl::StatusOr<Response>> result ATTIC_GUARDED_BY(mutex);
  };
  const auto answer = std::make_shared<Answer>();
  start([answer](absl::StatusOr<Response> result) {
    MutexLock lock(answer->mutex);
    answer->result = std::move(result);
    answer->came.NotifyOne();
  });
  MutexLock lock(answer->mutex);
  while (!answer->result.has_value() && absl::Now() < deadline) {
    answer->came.WaitFor(answer->mutex, WaitTime(deadline));
  }
  if (answer->result.has_value()) return *std::move(answer->result);
  return absl::DeadlineExceededError("the node did not answer in time");
}

// Waits for as many answers as there are calls; start(i, done).
template <typename Response, typename Start>
std::vector<absl::StatusOr<Response>> AwaitAll(size_t count, absl::Time deadline, Start start) {
  struct Answers {
    Mutex mutex;
    CondVar came;
    std::vector<absl::StatusOr<Response>> results ATTIC_GUARDED_BY(mutex);
    size_t missing ATTIC_GUARDED_BY(mutex) = 0;
  };
  const auto answers = std::make_shared<Answers>();
  {
    MutexLock lock(answers->mutex);
    answers->results.resize(count, absl::DeadlineExceededError("the node did not answer in time"));
    answers->missing = count;
  }
  for (size_t i = 0; i < count; ++i) {
    start(i, [answers, i](absl::StatusOr<Response> result) {
      MutexLock lock(answers->mutex);
      answers->results[i] = std::move(result);
      --answers->missing;
      answers->came.NotifyOne();
    });
  }
  MutexLock lock(answers->mutex);
  while (answers->missing > 0 && absl::Now() < deadline) {
    answers->came.WaitFor(answers->mutex, WaitTime(deadline));
  }
  return answers->results;
}

// Adds the ids of the manifests that a node holds.
absl::Status ListNode(PooledNode& node, absl::Time deadline, std::set<std::string>& ids) {
  v1::ListRequest request;
  request.set_page_size(kListPageSize);
  for (bool more = true; more;) {
    ATTIC_ASSIGN_OR_RETURN(const v1::ListResponse page,
                           Await<v1::ListResponse>(deadline, [&](auto done) {
                             node.link->List(request, deadline, std::move(done));
                           }));
    for (const v1::SessionDescription& session : page.sessions()) {
      if (!ParseShardSessionId(session.session_id()).has_value()) ids.insert(session.session_id());
    }
    more = page.more() && page.sessions_size() > 0;
    if (!more) break;
    const std::string& last = page.sessions().rbegin()->session_id();
    const auto shard = ParseShardSessionId(last);
    request.set_after_session_id(
        shard.has_value() ? absl::StrCat(shard->session_id, std::string(1, kBehindShards)) : last);
  }
  return absl::OkStatus();
}

void Add(const StoreStatus& node, StoreStatus& sum) {
  sum.sessions += node.sessions;
  sum.tokens += node.tokens;
  sum.pending_segments += node.pending_segments;
  sum.threads += node.threads;
  sum.memory += node.memory;
  sum.damage.insert(sum.damage.end(), node.damage.begin(), node.damage.end());
  sum.disk_bytes += node.disk_bytes;
  sum.cache_bytes += node.cache_bytes;
  sum.cache_hits += node.cache_hits;
  sum.cache_misses += node.cache_misses;
  sum.recovering_sessions += node.recovering_sessions;
  sum.evicted_sessions += node.evicted_sessions;
}

}  // namespace

absl::StatusOr<std::vector<SessionDescription>> ListCluster(ClusterCore& core,
                                                            ClusterSessions& sessions,
                                                            absl::Time deadline) {
  const auto map = core.directory.map();
  std::set<std::string> ids;
  bool listed = false;
  absl::Status trouble;
  for (uint32_t i = 0; i < map->nodes.size(); ++i) {
    if (map->nodes[i].state == NodeState::kDown) continue;
    const absl::Status status = ListNode(*core.Node(*map, i), deadline, ids);
    listed = listed || status.ok();
    trouble.Update(status);
  }
  if (!listed && !trouble.ok()) return trouble;
  std::vector<SessionDescription> descriptions;
  for (const std::string& id : ids) {
    absl::StatusOr<SessionDescription> one = sessions.Describe(id, deadline);
    if (absl::IsNotFound(one.status())) continue;  // closed meanwhile
    ATTIC_RETURN_IF_ERROR(one.status());
    descriptions.push_back(*std::move(one));
  }
  return descriptions;
}

absl::StatusOr<std::vector<HeadPlan>> PlanCluster(ClusterCore& core, ClusterSessions& sessions,
                                                  const std::string& session_id,
                                                  absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto info, sessions.Resolve(session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(std::vector<ShardId> shards, sessions.AllShards(*info, deadline));
  std::sort(shards.begin(), shards.end());
  std::vector<HeadPlan> plans;
  const auto map = core.directory.map();
  const auto slots = static_cast<uint32_t>(map->slots.size());
  for (size_t first = 0; first < shards.size(); first += kPlansAtOnce) {
    const size_t count = std::min(kPlansAtOnce, shards.size() - first);
    std::vector<std::optional<v1::PlanResponse>> found(count);
    absl::Status trouble = absl::UnavailableError("no live replica of a shard");
    for (size_t replica = 0; replica < kReplicasMax; ++replica) {
      std::vector<size_t> wanted;
      std::vector<uint32_t> nodes;
      for (size_t i = 0; i < count; ++i) {
        const SlotRoute route =
            RouteOf(*map, SlotOfShard(info->placement_key, shards[first + i], slots),
                    info->replication.replicas);
        if (found[i].has_value() || replica >= route.readers.size()) continue;
        wanted.push_back(i);
        nodes.push_back(route.readers[replica]);
      }
      const absl::Time until = std::min(deadline, absl::Now() + kNodeTime);
      const auto answers = AwaitAll<v1::PlanResponse>(
          wanted.size(), until, [&](size_t w, LinkDone<v1::PlanResponse> done) {
            v1::PlanRequest request;
            request.set_session_id(ShardSessionId(session_id, shards[first + wanted[w]]));
            core.Node(*map, nodes[w])->link->Plan(request, until, std::move(done));
          });
      for (size_t w = 0; w < wanted.size(); ++w) {
        if (answers[w].ok()) found[wanted[w]] = *answers[w];
        if (!answers[w].ok()) trouble = answers[w].status();
      }
    }
    for (size_t i = 0; i < count; ++i) {
      if (!found[i].has_value()) return trouble;
      for (const v1::HeadPlan& head : found[i]->heads()) {
        plans.push_back(wire::FromWire(head));
        plans.back().kv_head = shards[first + i].kv_head;
      }
    }
  }
  return plans;
}

absl::StatusOr<StoreStatus> ClusterStatus(ClusterCore& core, absl::Time deadline) {
  const auto map = core.directory.map();
  std::vector<uint32_t> nodes;
  for (uint32_t i = 0; i < map->nodes.size(); ++i) {
    if (map->nodes[i].state != NodeState::kDown) nodes.push_back(i);
  }
  const auto answers = AwaitAll<v1::StoreStatus>(
      nodes.size(), deadline, [&](size_t n, LinkDone<v1::StoreStatus> done) {
        core.Node(*map, nodes[n])->link->GetStatus({}, deadline, std::move(done));
      });
  StoreStatus sum;
  for (size_t n = 0; n < nodes.size(); ++n) {
    if (!answers[n].ok()) {
      return absl::UnavailableError(absl::StrCat("node ", map->nodes[nodes[n]].id, ": ",
                                                 std::string(answers[n].status().message())));
    }
    const StoreStatus node = wire::FromWire(*answers[n]);
    if (n == 0) {
      sum.version = node.version;
      sum.vector_target = node.vector_target;
      sum.uptime_seconds = node.uptime_seconds;
    }
    sum.uptime_seconds = std::min(sum.uptime_seconds, node.uptime_seconds);
    absl::StrAppend(&sum.boot_id, n == 0 ? "" : ",", node.boot_id);
    Add(node, sum);
  }
  sum.epoch = map->epoch;
  return sum;
}

}  // namespace attic
