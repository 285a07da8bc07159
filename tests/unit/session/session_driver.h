// Random operations on a store, each compared with SessionModel.
#ifndef ATTIC_TESTS_UNIT_SESSION_SESSION_DRIVER_H_
#define ATTIC_TESTS_UNIT_SESSION_SESSION_DRIVER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/session/session_store.h"
#include "tests/support/sanitizer.h"
#include "tests/unit/session/session_model.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {

// Operations of one run.
inline constexpr int kDriverSteps = kThreadSanitizer ? 100 : 400;

// Short segments, so that few tokens make an index.
SessionStoreOptions SmallOptions();

// Reports what differs as failures of the test that runs it. With a data directory in `options`,
// half of the sessions are durable, and Reopen is one of the operations.
class SessionDriver {
 public:
  SessionDriver(uint64_t seed, ElementType type, const SessionStoreOptions& options);

  void Step();
  void WaitForBuilds();
  // Stops the store and starts it again: durable sessions are as they were, others are gone.
  void Reopen();
  SessionStore& store() { return *store_; }

 private:
  SessionModel& model() { return sessions_.at(id_).model; }

  void Choose();
  int64_t Below(int64_t bound);
  void Open();
  absl::StatusOr<AppendAck> Send(const Tokens& tokens, int64_t begin);
  void Append();
  void AppendHeld();
  void AppendOther();
  void AppendGap();
  void Fork();
  void Truncate();
  void Close();
  void Attend();
  void Compare(const AttendAnswer& answer, const AttendItem& item);

  struct ModelledSession {
    SessionModel model;
    Durability durability;
  };

  std::mt19937_64 random_;
  const Fingerprint fingerprint_;
  const std::vector<uint32_t> layers_;
  const SessionStoreOptions options_;
  std::unique_ptr<SessionStore> store_;
  std::map<std::string, ModelledSession> sessions_;
  std::string id_;
  uint32_t layer_ = 0;
  int next_id_ = 0;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_SESSION_SESSION_DRIVER_H_
