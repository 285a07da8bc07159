// Makes a session of a snapshot (server/storage/SNAPSHOT.md) as its bytes come.
#ifndef ATTIC_SERVER_SESSION_SESSION_IMPORT_H_
#define ATTIC_SERVER_SESSION_SESSION_IMPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/types.h"
#include "base/memory_budget.h"
#include "server/session/session.h"
#include "server/session/snapshot_items.h"
#include "server/storage/snapshot_reader.h"

namespace attic {

// Nothing is seen of the session, in memory or on disk, before Finish; what came before goes with
// the object. Not thread-safe.
class SessionImport {
 public:
  // Rows of one layer that are in no segment, in a durable session.
  static constexpr uint64_t kRowsBytesMax = 1u << 30;

  struct Options {
    std::string session_id;  // empty: that of the snapshot
    Durability durability = Durability::kMemory;
    std::optional<Placement> placement;  // none: that of the snapshot
    // Whether a session of this kind may be opened, before anything is kept for it.
    std::function<absl::Status(const OpenSessionRequest& request)> admit;
    // So many bytes are about to be taken from the budget.
    std::function<void(uint64_t bytes)> make_room;
  };

  SessionImport(Options options, SessionResources resources);

  // The next bytes. After an error every call returns it.
  //   DATA_LOSS: damaged; FAILED_PRECONDITION: of another version, or built with other options;
  //   RESOURCE_EXHAUSTED; errors of the disk, and of Options::admit.
  absl::Status Write(std::string_view bytes);

  struct Imported {
    std::shared_ptr<Session> session;  // that nobody else knows
    bool pinned = false;
    std::vector<PrefixHash> hashes;
  };
  // There are no more bytes. DATA_LOSS when they were not all of a snapshot. A durable session is
  // on disk when it returns.
  absl::StatusOr<Imported> Finish();

 private:
  struct KeptRows {
    size_t layer = 0;  // the how manieth
    std::string item;
  };

  absl::Status Reserve(uint64_t bytes);
  absl::Status Take(const SnapshotItemName& name, std::string item);
  absl::Status TakeSession(const std::string& item);
  absl::Status TakeHeadState(const SnapshotItemName& name, const std::string& item);
  absl::Status TakeSegment(const SnapshotItemName& name, const std::string& item);
  absl::Status TakeRows(const SnapshotItemName& name, std::string item);
  absl::Status CheckPlace(const SnapshotItemName& name);
  absl::Status FinishHead();
  absl::Status FinishLayer();
  absl::Status PutOnDisk();
  bool durable() const { return options_.durability == Durability::kDurable; }
  StoredLayer& layer() { return *session_->layers()[layer_]; }

  const Options options_;
  SessionResources resources_;
  SnapshotReader reader_;
  std::unique_ptr<MemoryCharge> room_;  // for the item that is gathered, and for rows kept
  uint64_t rows_bytes_ = 0;             // of `rows_`
  uint64_t layer_rows_bytes_ = 0;

  SnapshotSession snapshot_;
  std::shared_ptr<Session> session_;
  // Where the reading is: items come layer by layer, head by head.
  size_t layer_ = 0;
  uint32_t head_ = 0;
  bool in_head_ = false;        // its state came
  bool learnt_ = false;         // and could be restored
  uint64_t head_segments_ = 0;  // that are to come for the head
  // Of a durable session, until it is on disk.
  std::vector<LayerState> states_;
  std::vector<KeptRows> rows_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_IMPORT_H_
