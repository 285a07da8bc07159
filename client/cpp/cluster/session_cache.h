// What a client remembers of the sessions it uses.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_SESSION_CACHE_H_
#define ATTIC_CLIENT_CPP_CLUSTER_SESSION_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/cpp/cluster/cluster_routes.h"

namespace attic {

// Up to where a layer is known to be held in every head.
struct KnownWatermark {
  int64_t watermark = 0;
  // By this client's own appends it stays up to date; what was learnt by looking gets old.
  bool appended_here = false;
  absl::Time seen;
};

// Thread-safe. Beyond `sessions_max`, the least recently used is forgotten.
class SessionCache {
 public:
  explicit SessionCache(size_t sessions_max) : sessions_max_(sessions_max) {}

  // Null when it is not known. Counts as use.
  std::shared_ptr<const SessionInfo> Find(const std::string& session_id, absl::Time now);
  // Keeps what is known of the watermarks when the session was known already.
  void Put(std::shared_ptr<const SessionInfo> info, absl::Time now);
  void Drop(const std::string& session_id);

  // These do nothing for sessions that are not known.
  void NoteAppended(const std::string& session_id, uint32_t layer, int64_t watermark);
  void NoteSeen(const std::string& session_id, uint32_t layer, int64_t watermark, absl::Time now);
  void NoteTruncated(const std::string& session_id, int64_t position);
  std::optional<KnownWatermark> Watermark(const std::string& session_id, uint32_t layer) const;

  // Changes whenever positions of the session may have been given up: it was cut, or forgotten.
  uint64_t Generation(const std::string& session_id) const;

  // Blocks [0, count) of a layer have been opened by this client, or seen.
  uint32_t BlocksOpened(const std::string& session_id, uint32_t layer) const;
  void NoteBlocksOpened(const std::string& session_id, uint32_t layer, uint32_t count);

  // The sessions with a lease that were used within their time to live and not renewed for a third
  // of it; they count as renewed now.
  std::vector<std::shared_ptr<const SessionInfo>> TakeDueLeases(absl::Time now);

 private:
  struct Entry {
    std::shared_ptr<const SessionInfo> info;
    std::map<uint32_t, KnownWatermark> watermarks;  // by layer
    std::map<uint32_t, uint32_t> blocks;            // by layer
    uint64_t generation = 0;
    absl::Time used;
    absl::Time renewed;
    std::list<std::string>::iterator order;
  };

  Entry* FindEntry(const std::string& session_id) ATTIC_REQUIRES(mutex_);
  const Entry* FindEntry(const std::string& session_id) const ATTIC_REQUIRES(mutex_);

  const size_t sessions_max_;
  mutable Mutex mutex_;
  std::unordered_map<std::string, Entry> entries_ ATTIC_GUARDED_BY(mutex_);
  std::list<std::string> order_ ATTIC_GUARDED_BY(mutex_);  // least recently used first
  uint64_t generations_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_SESSION_CACHE_H_
