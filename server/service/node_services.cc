#include "server/service/node_services.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"

namespace attic {
namespace {

// How long the end of the watch may take: nothing wakes it but a new map.
constexpr absl::Duration kWatchSlice = absl::Milliseconds(100);

size_t ThreadsOf(const ClusterOptions& options, size_t threads) {
  return options.node_of_cluster() ? std::max<size_t>(threads, 1) : 1;
}

}  // namespace

NodeServices::NodeServices(const ClusterOptions& options, SessionStore& store,
                           StreamRegistry& streams, CallMetrics& metrics, std::string boot_id,
                           const Limits& limits)
    : options_(options),
      store_(store),
      boot_id_(std::move(boot_id)),
      gate_(options.node_of_cluster(), boot_id_, options.want_newer_map),
      call_executor_(std::make_shared<ThreadPool>(ThreadsOf(options, options.call_threads)),
                     limits.requests_queued_max),
      transfer_executor_(std::make_shared<ThreadPool>(std::max<size_t>(options.transfer_threads, 1),
                                                      ThreadPool::Placement::kAnywhere,
                                                      ThreadPool::Priority::kBackground),
                         limits.requests_queued_max),
      shard_service_({.store = store,
                      .gate = gate_,
                      .call_executor = call_executor_,
                      .calls_together_max = ThreadsOf(options, options.call_threads),
                      .transfer_executor = transfer_executor_,
                      .streams = streams,
                      .metrics = metrics,
                      .boot_id = boot_id_,
                      .limits = limits}),
      cluster_service_({.gate = gate_,
                        .repair = [this] { return Progress(); },
                        .executor = call_executor_,
                        .metrics = metrics}) {}

NodeServices::~NodeServices() { Leave(absl::InfinitePast()); }

void NodeServices::Register(grpc::ServerBuilder& builder) {
  builder.RegisterService(&shard_service_);
  builder.RegisterService(&cluster_service_);
}

absl::Status NodeServices::Join(const std::string& bound_address,
                                std::function<void(bool)> ready_changed) {
  if (!options_.node_of_cluster()) return absl::OkStatus();
  ATTIC_ASSIGN_OR_RETURN(membership_,
                         options_.join({.boot_id = boot_id_, .bound_address = bound_address}));
  gate_.Join(membership_);
  if (options_.start_repair != nullptr) {
    ATTIC_ASSIGN_OR_RETURN(repair_, options_.start_repair(store_, membership_));
    gate_.SetRepair(repair_.get());
  }
  const bool ready = gate_.ready();
  ready_changed(ready);
  watcher_ = std::thread(
      [this, ready, changed = std::move(ready_changed)] { WatchReadiness(ready, changed); });
  return absl::OkStatus();
}

void NodeServices::WatchReadiness(bool told, const std::function<void(bool)>& ready_changed) {
  while (!leaving_) {
    membership_->WaitForNewer(gate_.epoch(), absl::Now() + kWatchSlice);
    const bool now = gate_.ready();
    if (now != told) ready_changed(now);
    told = now;
  }
}

void NodeServices::Leave(absl::Time deadline) {
  if (membership_ == nullptr || leaving_.exchange(true)) return;
  if (watcher_.joinable()) watcher_.join();
  membership_->Leave(deadline);
}

std::optional<NodeActivity> NodeServices::Activity() {
  if (!options_.node_of_cluster()) return std::nullopt;
  NodeActivity activity{.map = gate_.map(),
                        .repair = Progress(),
                        .calls = call_executor_.load(),
                        .transfers = transfer_executor_.load()};
  if (const Membership* const membership = gate_.membership(); membership != nullptr) {
    activity.node_id = membership->node_id();
    activity.controlling = membership->controlling();
    activity.etcd = membership->etcd_calls();
  }
  for (size_t i = 0; i < kGateRefusals; ++i) {
    activity.refusals[i] = gate_.refusals(static_cast<GateRefusal>(i));
  }
  return activity;
}

RepairProgress NodeServices::Progress() const {
  const NodeRepair* const repair = gate_.repair();
  return repair == nullptr ? RepairProgress{} : repair->progress();
}

}  // namespace attic
