// Sessions of a store as snapshots, out and in.
#ifndef ATTIC_SERVER_SESSION_STORE_SNAPSHOTS_H_
#define ATTIC_SERVER_SESSION_STORE_SNAPSHOTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/types.h"
#include "server/session/call_slots.h"
#include "server/session/live_sessions.h"
#include "server/session/session.h"
#include "server/session/session_import.h"
#include "server/session/session_store_options.h"
#include "server/session/snapshot_stream.h"

namespace attic {

// Thread-safe. What it returns must not outlive it.
class StoreSnapshots {
 public:
  // At most `count_max` snapshots at a time. `make_room` is told of bytes that are about to be
  // taken from the budget. Borrows all but that; `resources` as they are when an import begins.
  StoreSnapshots(size_t count_max, const SessionStoreOptions& options, LiveSessions& sessions,
                 const SessionResources& resources, std::function<void(uint64_t bytes)> make_room)
      : options_(options),
        sessions_(sessions),
        resources_(resources),
        make_room_(std::move(make_room)),
        slots_("snapshots", count_max) {}

  // See SessionStore::ExportSession and ImportSession.
  absl::StatusOr<std::unique_ptr<SnapshotSource>> Export(const std::string& session_id,
                                                         const ExportOptions& options);
  absl::StatusOr<std::unique_ptr<SnapshotSink>> Import(const ImportOptions& options,
                                                       ImportAdmission admit);

 private:
  class Source;
  class Sink;

  // Whether a session may be made of a snapshot.
  absl::Status Admit(const OpenSessionRequest& request);
  absl::StatusOr<SessionDescription> Publish(SessionImport::Imported imported);

  const SessionStoreOptions& options_;
  LiveSessions& sessions_;
  const SessionResources& resources_;
  const std::function<void(uint64_t bytes)> make_room_;
  CallSlots slots_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_STORE_SNAPSHOTS_H_
