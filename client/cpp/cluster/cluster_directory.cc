#include "client/cpp/cluster/cluster_directory.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/time/clock.h"
#include "client/cpp/rpc.h"
#include "wire/convert_cluster.h"

namespace attic {
namespace {

constexpr size_t kNodesAsked = 3;  // in one round
constexpr int kAskingMax = 16;     // rounds do not pile up on nodes that do not answer
constexpr absl::Duration kAskTimeout = absl::Seconds(1);
constexpr absl::Duration kRoundGap = absl::Milliseconds(20);  // between rounds that are asked for

}  // namespace

ClusterDirectory::ClusterDirectory(NodePool& pool, ClusterMap map, std::vector<std::string> seeds)
    : pool_(pool), seeds_(std::move(seeds)), random_(std::random_device()()) {
  {
    MutexLock lock(state_->mutex);
    state_->map = std::make_shared<const ClusterMap>(std::move(map));
  }
  thread_ = std::thread([this] { Run(); });
}

ClusterDirectory::~ClusterDirectory() {
  {
    MutexLock lock(state_->mutex);
    state_->stopping = true;
    state_->changed.NotifyAll();
  }
  thread_.join();
}

std::shared_ptr<const ClusterMap> ClusterDirectory::map() const {
  MutexLock lock(state_->mutex);
  return state_->map;
}

void ClusterDirectory::Saw(uint64_t epoch) {
  MutexLock lock(state_->mutex);
  if (epoch <= state_->map->epoch) return;
  state_->wanted = true;
  state_->changed.NotifyAll();
}

void ClusterDirectory::Refresh() {
  MutexLock lock(state_->mutex);
  state_->wanted = true;
  state_->changed.NotifyAll();
}

bool ClusterDirectory::WaitForNewer(uint64_t epoch, absl::Time until) {
  MutexLock lock(state_->mutex);
  while (state_->map->epoch <= epoch) {
    if (absl::Now() >= until) return false;
    state_->changed.WaitFor(state_->mutex, WaitTime(until));
  }
  return true;
}

void ClusterDirectory::State::Offer(const v1::GetMapResponse& response) {
  if (!response.has_map()) return;
  absl::StatusOr<ClusterMap> offered = wire::FromWire(response.map());
  if (!offered.ok()) return;  // of a later version, or damaged: another node is asked soon
  auto newer = std::make_shared<const ClusterMap>(*std::move(offered));
  MutexLock lock(mutex);
  if (newer->epoch <= map->epoch || newer->cluster != map->cluster) return;
  map = std::move(newer);
  changed.NotifyAll();
}

bool ClusterDirectory::WaitForWish() {
  const absl::Time due = absl::Now() + kInterval;
  MutexLock lock(state_->mutex);
  while (!state_->stopping && !state_->wanted && absl::Now() < due) {
    state_->changed.WaitFor(state_->mutex, WaitTime(due));
  }
  state_->wanted = false;
  return !state_->stopping;
}

void ClusterDirectory::Run() {
  while (WaitForWish()) {
    AskSome();
    const absl::Time next = absl::Now() + kRoundGap;
    MutexLock lock(state_->mutex);
    while (!state_->stopping && absl::Now() < next) {
      state_->changed.WaitFor(state_->mutex, WaitTime(next));
    }
  }
}

void ClusterDirectory::AskSome() {
  const std::shared_ptr<const ClusterMap> known = map();
  std::set<std::string> addresses(seeds_.begin(), seeds_.end());
  std::vector<std::string> likely, others(seeds_);
  for (const ClusterNode& node : known->nodes) {
    addresses.insert(node.address);
    (node.state == NodeState::kDown ? others : likely).push_back(node.address);
  }
  pool_.KeepOnly(addresses);
  std::shuffle(likely.begin(), likely.end(), random_);
  if (likely.size() > kNodesAsked) likely.resize(kNodesAsked);
  // The map may be so old that all of the likely ones are gone.
  if (!others.empty()) likely.push_back(others[random_() % others.size()]);
  v1::GetMapRequest request;
  request.set_known_epoch(known->epoch);
  for (const std::string& address : likely) {
    {
      MutexLock lock(state_->mutex);
      if (state_->asking >= kAskingMax) return;
      ++state_->asking;
    }
    pool_.Get(address)->link->GetMap(
        request, absl::Now() + kAskTimeout,
        [state = state_](const absl::StatusOr<v1::GetMapResponse>& response) {
          if (response.ok()) state->Offer(*response);
          MutexLock lock(state->mutex);
          --state->asking;
        });
  }
}

}  // namespace attic
