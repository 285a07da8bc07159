// A membership whose maps a test sets.
#ifndef ATTIC_TESTS_SUPPORT_MANUAL_MEMBERSHIP_H_
#define ATTIC_TESTS_SUPPORT_MANUAL_MEMBERSHIP_H_

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/membership.h"

namespace attic {

class ManualMembership final : public Membership {
 public:
  explicit ManualMembership(std::string node_id) : node_id_(std::move(node_id)) {}

  // Whatever its epoch.
  void Set(ClusterMap map) {
    MutexLock lock(mutex_);
    map_ = std::make_shared<const ClusterMap>(std::move(map));
    changed_.NotifyAll();
  }
  void SetControlling(bool controlling) {
    MutexLock lock(mutex_);
    controlling_ = controlling;
  }
  // What Change and Rebalance return.
  void SetAnswer(absl::Status answer) {
    MutexLock lock(mutex_);
    answer_ = std::move(answer);
  }

  // Called by Leave; to be set before.
  void SetOnLeave(std::function<void()> on_leave) { on_leave_ = std::move(on_leave); }

  // Called by Report; must not call this object.
  void SetOnReport(std::function<void(const SyncReport&)> on_report) {
    MutexLock lock(mutex_);
    on_report_ = std::move(on_report);
  }

  // What was asked of it, such as "change b drain", "rebalance" or "leave", in order.
  std::vector<std::string> asked() const {
    MutexLock lock(mutex_);
    return asked_;
  }
  SyncReport report() const {
    MutexLock lock(mutex_);
    return report_;
  }

  const std::string& node_id() const override { return node_id_; }
  ClusterMapPtr map() const override {
    MutexLock lock(mutex_);
    return map_;
  }
  ClusterMapPtr WaitForNewer(uint64_t epoch, absl::Time deadline) override {
    MutexLock lock(mutex_);
    while (map_ == nullptr || map_->epoch <= epoch) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return nullptr;
      changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, absl::Seconds(1))));
    }
    return map_;
  }
  void Offer(const ClusterMapPtr& map) override {
    MutexLock lock(mutex_);
    if (map_ == nullptr || map->epoch > map_->epoch) map_ = map;
    changed_.NotifyAll();
  }
  void Report(const SyncReport& report) override {
    MutexLock lock(mutex_);
    if (on_report_ != nullptr) on_report_(report);
    report_ = report;
  }
  bool controlling() const override {
    MutexLock lock(mutex_);
    return controlling_;
  }
  absl::Status Change(const std::string& node_id, NodeChange change, absl::Time) override {
    static constexpr const char* kNames[] = {"", "add", "drain", "remove"};
    MutexLock lock(mutex_);
    asked_.push_back("change " + node_id + " " + kNames[static_cast<int>(change)]);
    return answer_;
  }
  absl::Status Rebalance(absl::Time) override {
    MutexLock lock(mutex_);
    asked_.push_back("rebalance");
    return answer_;
  }
  void Leave(absl::Time) override {
    if (on_leave_ != nullptr) on_leave_();
    MutexLock lock(mutex_);
    asked_.push_back("leave");
  }

 private:
  const std::string node_id_;
  std::function<void()> on_leave_;
  mutable Mutex mutex_;
  CondVar changed_;
  ClusterMapPtr map_ ATTIC_GUARDED_BY(mutex_);
  bool controlling_ ATTIC_GUARDED_BY(mutex_) = false;
  absl::Status answer_ ATTIC_GUARDED_BY(mutex_);
  std::vector<std::string> asked_ ATTIC_GUARDED_BY(mutex_);
  std::function<void(const SyncReport&)> on_report_ ATTIC_GUARDED_BY(mutex_);
  SyncReport report_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_TESTS_SUPPORT_MANUAL_MEMBERSHIP_H_
