// Reads a session that is on disk into memory.
#ifndef ATTIC_SERVER_SESSION_SESSION_RECOVERY_H_
#define ATTIC_SERVER_SESSION_SESSION_RECOVERY_H_

#include <atomic>

#include "base/thread_pool.h"
#include "server/session/session.h"
#include "server/storage/durable_store.h"

namespace attic {

// Fills `session`, which Session::Recover made of `record`, and finishes its recovery: layer by
// layer as far as segments go, so that queries about the first positions are answered while later
// ones are read; vectors stay on disk. The heads of a layer are read in parallel on `pool`.
//
// Where a segment or rows are damaged, the session ends before them, and says so. When the disk
// fails, or the session was written with other options, it cannot be used at all until the next
// start. Gives up, leaving the session as it is, when `stop` becomes true.
void RecoverSession(const SessionRecord& record, const SessionResources& resources,
                    ThreadPool& pool, const std::atomic<bool>& stop, Session& session);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_RECOVERY_H_
