// Which sessions begin with which blocks of tokens, by the hash chains of api/prefix_hashes.h.
#ifndef ATTIC_SERVER_SESSION_PREFIX_INDEX_H_
#define ATTIC_SERVER_SESSION_PREFIX_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "api/prefix_hashes.h"
#include "base/mutex.h"
#include "server/session/session.h"

namespace attic {

// A session that begins with the first `blocks` of the blocks asked for, as far as it holds them.
struct PrefixMatch {
  std::shared_ptr<Session> session;
  size_t blocks = 0;
  uint64_t truncations = 0;
};

struct RegisteredPrefix {
  std::vector<PrefixHash> hashes;
  uint64_t truncations = 0;
};

// Sessions find each other within a tenant, a fingerprint and a set of stored layers. What a
// session says of its tokens is believed: stores do not know tokens.
//
// A prefix is taken without a lock over the copy: Find, fork, then StillHolds. A truncation
// announces itself here before it changes anything, so a fork made in between is found out.
//
// Thread-safe. Calls nothing while it holds its lock.
class PrefixIndex {
 public:
  // Registers a new session, and the hashes of its blocks from the first on.
  void Add(const std::shared_ptr<Session>& session, std::vector<PrefixHash> hashes);

  // Registers the hashes of further blocks. ALREADY_EXISTS when one registered before differs;
  // OUT_OF_RANGE when first_block is beyond their number; NOT_FOUND when the session is not
  // registered. On error nothing changed.
  absl::Status Extend(const Session& session, size_t first_block,
                      std::span<const PrefixHash> hashes);

  // To be called before the session forgets positions >= position: blocks that reach beyond are no
  // longer registered, held or not.
  void Truncate(const Session& session, int64_t position);

  void Remove(const Session& session);

  // The hashes registered for the session; none when it is not registered.
  RegisteredPrefix Registered(const Session& session) const;

  // All sessions of the request's tenant, fingerprint and stored layers that begin with at least
  // the first block of its prefix_hashes, those with the longest common chain first.
  std::vector<PrefixMatch> Find(const OpenSessionRequest& request) const;

  // Whether the session was neither removed nor truncated since Find or Registered said so often.
  bool StillHolds(const Session& session, uint64_t truncations) const;

 private:
  struct Entry {
    std::weak_ptr<Session> session;
    std::string scope;
    std::vector<PrefixHash> hashes;
    uint64_t truncations = 0;
  };
  // Chains in lexicographic order: those with the longest common beginning are neighbours.
  struct InOrder {
    using is_transparent = void;
    bool operator()(const Entry* a, const Entry* b) const;
    bool operator()(const Entry* a, std::span<const PrefixHash> b) const;
  };
  using Chains = std::set<const Entry*, InOrder>;

  Entry* FindEntry(const Session& session) ATTIC_REQUIRES(mutex_);
  const Entry* FindEntry(const Session& session) const ATTIC_REQUIRES(mutex_);
  // Takes an entry out of its chains, and puts it back after a change.
  void Detach(const Entry& entry) ATTIC_REQUIRES(mutex_);
  void Attach(const Entry& entry) ATTIC_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::unordered_map<const Session*, Entry> entries_ ATTIC_GUARDED_BY(mutex_);
  std::map<std::string, Chains> scopes_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_PREFIX_INDEX_H_
