#include "server/cluster/etcd_membership.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "server/cluster/accuser.h"
#include "server/cluster/controller.h"
#include "server/cluster/etcd/etcd_client.h"
#include "server/cluster/etcd/lease_keeper.h"
#include "server/cluster/map_holder.h"
#include "server/cluster/observed_cluster.h"
#include "server/cluster/peer_map.h"

namespace attic {
namespace {

// Between looks at what only time changes, and between attempts at etcd.
constexpr absl::Duration kControlPause = absl::Milliseconds(200);
constexpr absl::Duration kListPause = absl::Milliseconds(200);
constexpr absl::Duration kPeerPause = absl::Milliseconds(200);
// Peers are asked although nobody knows of a newer map, while etcd is away.
constexpr absl::Duration kPeerPauseWithoutEtcd = absl::Seconds(1);
constexpr absl::Duration kPeerTimeout = absl::Seconds(1);
constexpr absl::Duration kSavePause = absl::Seconds(1);

// Times of decisions must not jump with the wall clock.
absl::Time MonotonicNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

ControllerOptions ControllerOptionsOf(const EtcdMembershipOptions& options) {
  return {.cluster = options.cluster,
          .node_id = options.node.node_id,
          .placement = options.placement,
          .initial_nodes = options.initial_nodes,
          .grace = options.lease + absl::Seconds(1)};
}

class EtcdMembershipImpl final : public EtcdMembership {
 public:
  EtcdMembershipImpl(const EtcdMembershipOptions& options, std::unique_ptr<EtcdClient> client)
      : options_(options),
        keys_(options.cluster),
        client_(std::move(client)),
        holder_(options.cluster),
        observed_(options.cluster),
        controller_(*client_, ControllerOptionsOf(options),
                    [this](std::span<const std::string> addresses, uint64_t epoch) {
                      return NewestOf(addresses, epoch);
                    }) {
    keeper_ = std::make_unique<LeaseKeeper>(
        *client_, options.lease,
        LeaseKeeperHandler{.on_granted = [this](int64_t lease) { return Register(lease); },
                           .on_lost =
                               [this](int64_t) {
                                 ++lease_losses_;
                                 Wake();
                               }});
    if (options.probe) {
      accuser_ = std::make_unique<Accuser>(
          *client_,
          AccuserOptions{.cluster = options.cluster, .node_id = options.node.node_id, .probe = {}},
          [this] { OnFoundGone(); });
    }
    threads_.emplace_back([this] { Observe(); });
    threads_.emplace_back([this] { Control(); });
    threads_.emplace_back([this] { AskPeers(); });
    if (options.save_map != nullptr) threads_.emplace_back([this] { SaveMaps(); });
  }

  ~EtcdMembershipImpl() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    holder_.Stop();
    for (std::thread& thread : threads_) thread.join();
    accuser_.reset();
    keeper_.reset();
  }

  const std::string& node_id() const override { return options_.node.node_id; }
  ClusterMapPtr map() const override { return holder_.map(); }
  ClusterMapPtr WaitForNewer(uint64_t epoch, absl::Time deadline) override {
    return holder_.WaitForNewer(epoch, deadline);
  }
  void Offer(const ClusterMapPtr& map) override { holder_.Offer(map); }
  void Report(const SyncReport& report) override {
    MutexLock lock(mutex_);
    if (report_ == report) return;
    report_ = report;
    report_sent_ = false;
    report_new_ = true;
    changed_.NotifyAll();
  }
  bool controlling() const override { return controller_.controlling(); }
  absl::Status Change(const std::string& node_id, NodeChange change, absl::Time deadline) override;
  absl::Status Rebalance(absl::Time deadline) override;
  void Leave(absl::Time deadline) override;
  void WantNewer(uint64_t epoch) override {
    MutexLock lock(mutex_);
    if (epoch <= wanted_epoch_) return;
    wanted_epoch_ = epoch;
    changed_.NotifyAll();
  }
  std::optional<EtcdCalls> etcd_calls() const override {
    const bool lease_kept = keeper_->last_status().ok();
    MutexLock lock(mutex_);
    return EtcdCalls{.connected = watching_ && lease_kept,
                     .failures = failures_ + keeper_->failures(),
                     .lease_losses = lease_losses_,
                     .accusations = accuser_ == nullptr ? 0 : accuser_->accusations(),
                     .returns = returns_};
  }

 private:
  absl::Status Register(int64_t lease);
  // Registers again where somebody deleted the registration, taking this process for one that
  // ended.
  void Return();
  void WaitUntilDown(absl::Time deadline);
  void SendReport();
  void Observe();
  // Lists, then watches until that fails or the node stops.
  void ObserveOnce();
  void OnEvents(std::span<const EtcdEvent> events);
  void NoteOwnRegistration(const EtcdEvent& event) ATTIC_REQUIRES(mutex_);
  void OnFoundGone();
  void Control();
  ControllerInput Input();
  void AskPeers();
  void SaveMaps();
  // controller.h says what it does.
  ClusterMapPtr NewestOf(std::span<const std::string> addresses, uint64_t epoch);

  void Wake() {
    MutexLock lock(mutex_);
    changed_.NotifyAll();
  }
  bool Stopping() {
    MutexLock lock(mutex_);
    return stopping_;
  }
  void Count(const absl::Status& status) {
    if (!status.ok()) ++failures_;
  }
  // Returns false at once when the node stops, and true when `pause` is over or, with `seen`, when
  // observations_ is another or there is a new report.
  bool Sleep(absl::Duration pause, std::optional<uint64_t> seen = std::nullopt);

  const EtcdMembershipOptions options_;
  const ClusterKeys keys_;
  const std::unique_ptr<EtcdClient> client_;
  MapHolder holder_;
  std::atomic<uint64_t> failures_ = 0;  // beside those that keeper_ counts
  std::atomic<uint64_t> lease_losses_ = 0;
  std::atomic<uint64_t> returns_ = 0;

  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  ObservedCluster observed_ ATTIC_GUARDED_BY(mutex_);
  uint64_t observations_ ATTIC_GUARDED_BY(mutex_) = 0;  // counts up with every change of observed_
  bool watching_ ATTIC_GUARDED_BY(mutex_) = false;
  absl::Time watching_since_ ATTIC_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time granted_at_ ATTIC_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  int64_t registered_lease_ ATTIC_GUARDED_BY(mutex_) = 0;
  int64_t registered_revision_ ATTIC_GUARDED_BY(mutex_) = 0;
  // Of etcd when this node was last seen not to be registered; 0: not since the keys are watched.
  int64_t unregistered_revision_ ATTIC_GUARDED_BY(mutex_) = 0;
  bool leaving_ ATTIC_GUARDED_BY(mutex_) = false;
  std::optional<SyncReport> report_ ATTIC_GUARDED_BY(mutex_);
  bool report_sent_ ATTIC_GUARDED_BY(mutex_) = true;
  bool report_new_ ATTIC_GUARDED_BY(mutex_) = false;  // no attempt was made to send it
  uint64_t wanted_epoch_ ATTIC_GUARDED_BY(mutex_) = 0;

  Controller controller_;  // used by the controlling thread
  std::unique_ptr<LeaseKeeper> keeper_;
  std::unique_ptr<Accuser> accuser_;  // null: nobody is probed
  std::vector<std::thread> threads_;  // last: they use everything above
};

bool EtcdMembershipImpl::Sleep(absl::Duration pause, std::optional<uint64_t> seen) {
  const absl::Time end = MonotonicNow() + pause;
  MutexLock lock(mutex_);
  while (!stopping_) {
    const absl::Duration left = end - MonotonicNow();
    const bool news = seen.has_value() && (observations_ != *seen || report_new_);
    if (left <= absl::ZeroDuration() || news) return true;
    changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(left));
  }
  return false;
}

absl::Status EtcdMembershipImpl::Register(int64_t lease) {
  while (true) {
    std::optional<SyncReport> report;
    bool leaving = false;
    {
      MutexLock lock(mutex_);
      report = report_;
      leaving = leaving_;
    }
    const KnownEpochs known = {.map = EpochOf(holder_.map()), .saved = EpochOf(options_.saved_map)};
    EtcdTransaction transaction;
    transaction.puts.push_back({.key = keys_.Node(node_id()),
                                .value = EncodeRegistration(options_.node, leaving, known),
                                .lease = lease});
    if (report.has_value()) {
      transaction.puts.push_back({.key = keys_.Synced(node_id()),
                                  .value = EncodeReport(*report, options_.node.boot_id),
                                  .lease = lease});
    }
    ATTIC_ASSIGN_OR_RETURN(const EtcdCommit put, client_->Commit(transaction));
    MutexLock lock(mutex_);
    registered_revision_ = std::max(put.revision, registered_revision_);
    // Nothing was away while a lease was held.
    if (std::exchange(registered_lease_, lease) != lease) {
      registered_revision_ = put.revision;
      granted_at_ = MonotonicNow();
    }
    changed_.NotifyAll();
    // It may have replaced what another thread said when the node was to leave.
    if (leaving == leaving_) return absl::OkStatus();
  }
}

void EtcdMembershipImpl::Return() {
  const int64_t lease = keeper_->lease();
  {
    MutexLock lock(mutex_);
    // Under another lease the keeper has it registered, or is about to.
    if (!watching_ || leaving_ || lease == 0 || lease != registered_lease_ ||
        unregistered_revision_ <= registered_revision_) {
      return;
    }
  }
  const absl::Status registered = Register(lease);
  Count(registered);
  if (registered.ok()) ++returns_;
}

void EtcdMembershipImpl::SendReport() {
  const int64_t lease = keeper_->lease();
  SyncReport report;
  {
    MutexLock lock(mutex_);
    report_new_ = false;
    if (report_sent_ || lease == 0) return;
    report = *report_;
    report_sent_ = true;
  }
  const absl::Status put =
      client_->Put(keys_.Synced(node_id()), EncodeReport(report, options_.node.boot_id), lease)
          .status();
  Count(put);
  if (put.ok()) return;
  MutexLock lock(mutex_);
  report_sent_ = false;
}

void EtcdMembershipImpl::NoteOwnRegistration(const EtcdEvent& event) {
  if (event.deleted && event.entry.key == keys_.Node(node_id())) {
    unregistered_revision_ = event.entry.mod_revision;
  }
}

void EtcdMembershipImpl::OnFoundGone() {
  MutexLock lock(mutex_);
  ++observations_;  // or rather what is to be made of them
  changed_.NotifyAll();
}

void EtcdMembershipImpl::OnEvents(std::span<const EtcdEvent> events) {
  ClusterMapPtr map;
  {
    MutexLock lock(mutex_);
    for (const EtcdEvent& event : events) {
      observed_.Apply(event);
      NoteOwnRegistration(event);
    }
    map = observed_.map();
    ++observations_;
    changed_.NotifyAll();
  }
  holder_.Offer(map);
}

void EtcdMembershipImpl::ObserveOnce() {
  const auto listed = client_->List(keys_.prefix());
  Count(listed.status());
  if (!listed.ok()) return;
  ClusterMapPtr map;
  bool missing = false;
  {
    MutexLock lock(mutex_);
    observed_.Reset(*listed);
    missing = observed_.members().count(node_id()) == 0 && !leaving_;
    unregistered_revision_ = missing ? listed->revision : 0;
    map = observed_.map() == nullptr ? options_.saved_map : observed_.map();
    ++observations_;
    watching_ = true;
    watching_since_ = MonotonicNow();
    changed_.NotifyAll();
  }
  holder_.Offer(map);
  // Perhaps the lease went with all that etcd knew, which else would be found out only when it is
  // to be kept alive.
  if (missing) keeper_->AskNow();
  bool ended = false;  // guarded by mutex_
  const auto watch =
      client_->Watch(keys_.prefix(), listed->revision + 1,
                     {.on_events = [this](std::span<const EtcdEvent> events) { OnEvents(events); },
                      .on_end =
                          [this, &ended](const absl::Status& status) {
                            Count(status);
                            MutexLock lock(mutex_);
                            ended = true;
                            changed_.NotifyAll();
                          }});
  MutexLock lock(mutex_);
  while (!stopping_ && !ended) changed_.Wait(mutex_);
}

void EtcdMembershipImpl::Observe() {
  do {
    ObserveOnce();
    MutexLock lock(mutex_);
    watching_ = false;
    watching_since_ = absl::InfiniteFuture();
  } while (Sleep(kListPause));
}

ControllerInput EtcdMembershipImpl::Input() {
  MutexLock lock(mutex_);
  return {.observed = observed_,
          .known = holder_.map(),
          .lease = watching_ ? keeper_->lease() : 0,
          .trusted_since = std::max(watching_since_, granted_at_),
          .now = MonotonicNow(),
          .gone = accuser_ == nullptr ? std::map<std::string, std::string>() : accuser_->gone()};
}

void EtcdMembershipImpl::Control() {
  uint64_t seen = 0;
  do {
    Return();
    SendReport();
    {
      MutexLock lock(mutex_);
      seen = observations_;
    }
    const ControllerInput input = Input();
    if (accuser_ != nullptr) accuser_->Observe(input);
    const ControllerStep step = controller_.Step(input);
    if (step.map == nullptr) continue;
    {
      MutexLock lock(mutex_);
      observed_.SetMap(step.map, step.map_revision);
    }
    holder_.Offer(step.map);
  } while (Sleep(kControlPause, seen));
}

void EtcdMembershipImpl::AskPeers() {
  absl::Time asked = absl::InfinitePast();
  do {
    const ClusterMapPtr map = holder_.map();
    const absl::Time now = MonotonicNow();
    bool ask = false;
    {
      MutexLock lock(mutex_);
      ask = wanted_epoch_ > EpochOf(map) || (!watching_ && now >= asked + kPeerPauseWithoutEtcd);
    }
    if (map == nullptr || !ask) continue;
    asked = now;
    holder_.Offer(NewestOf(AddressesOfPeers(*map, node_id()), map->epoch));
  } while (Sleep(kPeerPause));
}

void EtcdMembershipImpl::SaveMaps() {
  uint64_t saved = 0;
  do {
    const ClusterMapPtr map = holder_.WaitForNewer(saved, absl::InfiniteFuture());
    if (map != nullptr && options_.save_map(*map).ok()) saved = map->epoch;
  } while (Sleep(kSavePause));
}

ClusterMapPtr EtcdMembershipImpl::NewestOf(std::span<const std::string> addresses, uint64_t epoch) {
  ClusterMapPtr newest;
  for (const std::string& address : addresses) {
    if (Stopping()) break;
    const auto answer = AskForMap(address, epoch, absl::Now() + kPeerTimeout);
    if (!answer.ok() || *answer == nullptr || (*answer)->epoch <= epoch) continue;
    if ((*answer)->cluster != options_.cluster) continue;
    newest = *answer;
    epoch = newest->epoch;
  }
  return newest;
}

absl::Status EtcdMembershipImpl::Change(const std::string& node_id, NodeChange change,
                                        absl::Time deadline) {
  const ClusterMapPtr map = holder_.map();
  bool known = map != nullptr && map->FindNode(node_id) >= 0;
  {
    MutexLock lock(mutex_);
    known = known || observed_.members().count(node_id) > 0;
  }
  if (!known) return absl::NotFoundError(absl::StrCat("node_id: no node ", node_id));
  if (absl::Now() >= deadline) return absl::DeadlineExceededError("change: deadline passed");
  if (change == NodeChange::kAdd) return client_->Delete(keys_.Change(node_id)).status();
  return client_->Put(keys_.Change(node_id), EncodeChange(change)).status();
}

absl::Status EtcdMembershipImpl::Rebalance(absl::Time deadline) {
  if (absl::Now() >= deadline) return absl::DeadlineExceededError("rebalance: deadline passed");
  ATTIC_ASSIGN_OR_RETURN(const EtcdEntry held, client_->Get(keys_.Rebalance()));
  // Larger than any before, also when etcd lost its data.
  uint64_t wish = static_cast<uint64_t>(held.revision) + 1;
  if (const ClusterMapPtr map = holder_.map(); map != nullptr) {
    wish = std::max(wish, map->rebalanced + 1);
  }
  return client_->Put(keys_.Rebalance(), absl::StrCat(wish)).status();
}

void EtcdMembershipImpl::Leave(absl::Time deadline) {
  {
    MutexLock lock(mutex_);
    leaving_ = true;
  }
  // The node may still be the controller, and then does it itself.
  if (const int64_t lease = keeper_->lease(); lease != 0) Register(lease).IgnoreError();
  WaitUntilDown(deadline);
  keeper_->Release().IgnoreError();
}

void EtcdMembershipImpl::WaitUntilDown(absl::Time deadline) {
  ClusterMapPtr map = holder_.map();
  const auto live = [](const ClusterNode& node) { return node.state == NodeState::kLive; };
  while (map != nullptr) {
    const int64_t index = map->FindNode(node_id());
    if (index < 0 || map->nodes[index].state == NodeState::kDown) return;
    // Nobody is left who would say so.
    const auto others = std::count_if(map->nodes.begin(), map->nodes.end(), live);
    if (others <= (live(map->nodes[index]) ? 1 : 0)) return;
    map = holder_.WaitForNewer(map->epoch, deadline);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EtcdMembership>> EtcdMembership::Start(
    const EtcdMembershipOptions& options) {
  for (const auto& [text, flag] :
       {std::pair(&options.cluster, "cluster"), std::pair(&options.node.node_id, "node-id")}) {
    const bool plain = !text->empty() && text->find_first_not_of(
                                             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                             "0123456789._-") == std::string::npos;
    if (!plain) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, ": one or more letters, digits, '.', '_' and '-' are asked for"));
    }
  }
  ATTIC_ASSIGN_OR_RETURN(auto client, EtcdClient::Create(options.etcd));
  return std::make_unique<EtcdMembershipImpl>(options, std::move(client));
}

}  // namespace attic
