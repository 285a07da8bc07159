#include "client/cpp/local_client.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr absl::Duration kAppendTimeout = absl::Seconds(30);
constexpr size_t kListPageSize = 1000;

// Every batch is held when Append returns, so there is nothing to flush.
class LocalAppendStream final : public AppendStream {
 public:
  explicit LocalAppendStream(std::shared_ptr<SessionStore> store) : store_(std::move(store)) {}

  absl::Status Append(const AppendBatch& batch) override {
    ATTIC_RETURN_IF_ERROR(error_);
    absl::StatusOr<AppendAck> ack = store_->Append(batch, absl::Now() + kAppendTimeout);
    if (ack.ok()) {
      last_ack_ = *ack;
    } else {
      error_ = ack.status();
    }
    return error_;
  }

  absl::StatusOr<AppendAck> Flush(absl::Time) override {
    ATTIC_RETURN_IF_ERROR(error_);
    return last_ack_;
  }

 private:
  const std::shared_ptr<SessionStore> store_;
  absl::Status error_;
  AppendAck last_ack_;
};

absl::Status CheckTime(absl::Time deadline) {
  if (absl::Now() < deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("snapshot: deadline passed");
}

class LocalClient final : public Client {
 public:
  explicit LocalClient(const SessionStoreOptions& options)
      : store_(SessionStore::Create(options)) {}

  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) override {
    return store_->OpenSession(request);
  }
  absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) override {
    return store_->DescribeSession(session_id);
  }
  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) override {
    return store_->PlanSession(session_id);
  }
  absl::StatusOr<std::vector<SessionDescription>> ListSessions() override {
    std::vector<SessionDescription> sessions;
    std::string after;
    for (;;) {
      std::vector<SessionDescription> page = store_->ListSessions(after, kListPageSize);
      if (page.empty()) return sessions;
      after = page.back().session_id;
      std::move(page.begin(), page.end(), std::back_inserter(sessions));
    }
  }
  absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                 const ForkOptions& options) override {
    return store_->ForkSession(session_id, options);
  }
  absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                     int64_t position) override {
    return store_->TruncateSession(session_id, position);
  }
  absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                  absl::Time deadline) override {
    return store_->FlushSession(session_id, deadline);
  }
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                  uint32_t first_block,
                                                  std::span<const PrefixHash> hashes) override {
    return store_->ExtendPrefix(session_id, first_block, hashes);
  }
  absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) override {
    return store_->RenewLease(session_id);
  }
  absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                bool pinned) override {
    return store_->PinSession(session_id, pinned);
  }
  absl::Status CloseSession(const std::string& session_id) override {
    return store_->CloseSession(session_id);
  }
  absl::Status ExportSession(const std::string& session_id, absl::Time deadline,
                             const SnapshotWrite& write) override {
    ATTIC_ASSIGN_OR_RETURN(const auto source, store_->ExportSession(session_id));
    std::string chunk;
    for (;;) {
      ATTIC_RETURN_IF_ERROR(CheckTime(deadline));
      ATTIC_ASSIGN_OR_RETURN(const bool more, source->Next(chunk));
      if (!more) return absl::OkStatus();
      ATTIC_RETURN_IF_ERROR(write(chunk, source->bytes_estimated()));
    }
  }
  absl::StatusOr<SessionDescription> ImportSession(const ImportOptions& options,
                                                   absl::Time deadline,
                                                   const SnapshotRead& read) override {
    ATTIC_ASSIGN_OR_RETURN(const auto sink, store_->ImportSession(options));
    for (;;) {
      ATTIC_RETURN_IF_ERROR(CheckTime(deadline));
      ATTIC_ASSIGN_OR_RETURN(const std::string bytes, read());
      if (bytes.empty()) return sink->Finish();
      ATTIC_RETURN_IF_ERROR(sink->Write(bytes));
    }
  }
  absl::StatusOr<std::unique_ptr<AppendStream>> OpenAppendStream() override {
    return std::make_unique<LocalAppendStream>(store_);
  }
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override {
    for (const AttendItem& item : items) {
      if (item.layer != items.front().layer) {
        return absl::InvalidArgumentError("layer: the items of one call must have the same layer");
      }
    }
    return store_->Attend(items, deadline);
  }
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override {
    return store_->Search(request, deadline);
  }
  absl::StatusOr<StoreStatus> Status() override { return store_->Status(); }

 private:
  const std::shared_ptr<SessionStore> store_;
};

}  // namespace

std::unique_ptr<Client> MakeLocalClient(const SessionStoreOptions& options) {
  return std::make_unique<LocalClient>(options);
}

}  // namespace attic
