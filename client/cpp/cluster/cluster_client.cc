#include "client/cpp/cluster/cluster_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/cluster/cluster_append.h"
#include "client/cpp/cluster/cluster_attend.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_export.h"
#include "client/cpp/cluster/cluster_import.h"
#include "client/cpp/cluster/cluster_overview.h"
#include "client/cpp/cluster/cluster_search.h"
#include "client/cpp/cluster/cluster_sessions.h"
#include "client/cpp/cluster/lease_keeper.h"
#include "client/cpp/rpc.h"

namespace attic {
namespace {

class ClusterClient final : public Client {
 public:
  explicit ClusterClient(std::shared_ptr<ClusterCore> core)
      : core_(std::move(core)), sessions_(*core_), leases_(*core_, sessions_) {}

  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) override {
    return sessions_.Open(request, core_->CallDeadline());
  }
  absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) override {
    return sessions_.Describe(session_id, core_->CallDeadline());
  }
  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) override {
    return PlanCluster(*core_, sessions_, session_id, core_->CallDeadline());
  }
  absl::StatusOr<std::vector<SessionDescription>> ListSessions() override {
    return ListCluster(*core_, sessions_, core_->CallDeadline());
  }
  absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                 const ForkOptions& options) override {
    return sessions_.Fork(session_id, options, core_->CallDeadline());
  }
  absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                     int64_t position) override {
    return sessions_.Truncate(session_id, position, core_->CallDeadline());
  }
  absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                  absl::Time deadline) override {
    return sessions_.Flush(session_id, deadline);
  }
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                  uint32_t first_block,
                                                  std::span<const PrefixHash> hashes) override {
    return sessions_.ExtendPrefix(session_id, first_block, hashes, core_->CallDeadline());
  }
  absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) override {
    return sessions_.RenewLease(session_id, core_->CallDeadline());
  }
  absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                bool pinned) override {
    return sessions_.Pin(session_id, pinned, core_->CallDeadline());
  }
  absl::Status CloseSession(const std::string& session_id) override {
    return sessions_.Close(session_id, core_->CallDeadline());
  }

  absl::Status ExportSession(const std::string& session_id, absl::Time deadline,
                             const SnapshotWrite& write) override {
    return ExportCluster(*core_, sessions_, session_id, deadline, write);
  }
  absl::StatusOr<SessionDescription> ImportSession(const ImportOptions& options,
                                                   absl::Time deadline,
                                                   const SnapshotRead& read) override {
    return ImportCluster(*core_, sessions_, options, deadline, read);
  }

  absl::StatusOr<std::unique_ptr<AppendStream>> OpenAppendStream() override {
    return std::make_unique<ClusterAppendStream>(core_);
  }
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override {
    const CallInProgress call(*this, deadline);
    if (!call.admitted()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "attend_requests_in_flight_max = ", core_->options.limits.attend_requests_in_flight_max,
          " calls stayed in flight until the deadline"));
    }
    return ClusterAttend(*core_, sessions_, items, deadline);
  }
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override {
    return ClusterSearch(*core_, sessions_, request, deadline);
  }
  absl::StatusOr<StoreStatus> Status() override {
    return ClusterStatus(*core_, core_->CallDeadline());
  }

 private:
  // One of the attend calls that may be in flight.
  class CallInProgress {
   public:
    CallInProgress(ClusterClient& client, absl::Time deadline) : client_(client) {
      const size_t calls_max = client.core_->options.limits.attend_requests_in_flight_max;
      MutexLock lock(client.mutex_);
      while (client.attends_ >= calls_max && absl::Now() < deadline) {
        client.attend_ended_.WaitFor(client.mutex_, WaitTime(deadline));
      }
      admitted_ = client.attends_ < calls_max;
      if (admitted_) ++client.attends_;
    }
    ~CallInProgress() {
      if (!admitted_) return;
      MutexLock lock(client_.mutex_);
      --client_.attends_;
      client_.attend_ended_.NotifyOne();
    }
    CallInProgress(const CallInProgress&) = delete;
    CallInProgress& operator=(const CallInProgress&) = delete;
    bool admitted() const { return admitted_; }

   private:
    ClusterClient& client_;
    bool admitted_ = false;
  };

  const std::shared_ptr<ClusterCore> core_;
  ClusterSessions sessions_;
  Mutex mutex_;
  CondVar attend_ended_;
  size_t attends_ ATTIC_GUARDED_BY(mutex_) = 0;
  LeaseKeeper leases_;
};

}  // namespace

std::unique_ptr<Client> MakeClusterClient(const ClientOptions& options, NodeLinkFactory factory,
                                          ClusterMap map, std::vector<std::string> seeds) {
  return std::make_unique<ClusterClient>(
      std::make_shared<ClusterCore>(options, std::move(factory), std::move(map), std::move(seeds)));
}

}  // namespace attic
