#include "server/session/store_snapshots.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/session/session_admission.h"
#include "server/session/session_export.h"
#include "server/session/validation.h"

namespace attic {

class StoreSnapshots::Source final : public SnapshotSource {
 public:
  Source(std::shared_ptr<void> slot, std::unique_ptr<SessionExport> session)
      : slot_(std::move(slot)), session_(std::move(session)) {}
  absl::StatusOr<bool> Next(std::string& chunk) override { return session_->Next(chunk); }
  uint64_t bytes_estimated() const override { return session_->bytes_estimated(); }

 private:
  const std::shared_ptr<void> slot_;
  const std::unique_ptr<SessionExport> session_;
};

class StoreSnapshots::Sink final : public SnapshotSink {
 public:
  Sink(std::shared_ptr<void> slot, StoreSnapshots& snapshots, SessionImport::Options options)
      : slot_(std::move(slot)),
        snapshots_(snapshots),
        import_(std::move(options), snapshots.resources_) {}
  absl::Status Write(std::string_view bytes) override { return import_.Write(bytes); }
  absl::StatusOr<SessionDescription> Finish() override {
    ATTIC_ASSIGN_OR_RETURN(SessionImport::Imported imported, import_.Finish());
    return snapshots_.Publish(std::move(imported));
  }

 private:
  const std::shared_ptr<void> slot_;
  StoreSnapshots& snapshots_;
  SessionImport import_;
};

absl::StatusOr<std::unique_ptr<SnapshotSource>> StoreSnapshots::Export(
    const std::string& session_id, const ExportOptions& options) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(session_id));
  ATTIC_ASSIGN_OR_RETURN(std::shared_ptr<void> slot, slots_.Take());
  ATTIC_ASSIGN_OR_RETURN(
      auto taken, SessionExport::Begin(session, options.position,
                                       [this, &session] { return sessions_.Hashes(*session); }));
  return std::make_unique<Source>(std::move(slot), std::move(taken));
}

absl::StatusOr<std::unique_ptr<SnapshotSink>> StoreSnapshots::Import(const ImportOptions& options,
                                                                     ImportAdmission admit) {
  ATTIC_RETURN_IF_ERROR(CheckDurability(options.durability, options_));
  if (!options.session_id.empty()) {
    ATTIC_RETURN_IF_ERROR(ValidateSessionId(options.session_id, "session_id", options_.limits));
  }
  ATTIC_ASSIGN_OR_RETURN(std::shared_ptr<void> slot, slots_.Take());
  SessionImport::Options import{
      .session_id = options.session_id,
      .durability = options.durability,
      .placement = options.placement,
      .admit = [this, admit = std::move(admit)](const OpenSessionRequest& request) -> absl::Status {
        if (admit != nullptr) ATTIC_RETURN_IF_ERROR(admit(request));
        return Admit(request);
      },
      .make_room = make_room_};
  return std::make_unique<Sink>(std::move(slot), *this, std::move(import));
}

absl::Status StoreSnapshots::Admit(const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(CheckOpen(request, options_));
  if (request.session_id.empty()) return absl::InvalidArgumentError("session_id: is empty");
  if (sessions_.catalogue().Contains(request.session_id)) {
    return absl::AlreadyExistsError(absl::StrCat("session_id: ", request.session_id, " is taken"));
  }
  return sessions_.RoomForSession(request.tenant);
}

absl::StatusOr<SessionDescription> StoreSnapshots::Publish(SessionImport::Imported imported) {
  imported.session->lease().SetPinned(imported.pinned);
  ATTIC_RETURN_IF_ERROR(sessions_.Publish(imported.session, std::move(imported.hashes)));
  SessionDescription description = sessions_.Describe(*imported.session);
  description.created = true;
  return description;
}

}  // namespace attic
