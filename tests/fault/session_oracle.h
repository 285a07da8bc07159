// What a session store must hold after its process or its machine stopped, and the comparison.
#ifndef ATTIC_TESTS_FAULT_SESSION_ORACLE_H_
#define ATTIC_TESTS_FAULT_SESSION_ORACLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "server/session/session_store.h"
#include "tests/fault/session_workload.h"
#include "tests/unit/session/session_model.h"

namespace attic {

// Follows a workload. Not thread-safe.
class SessionOracle : public WorkloadListener {
 public:
  void Begin(const Operation& operation) override;
  void Done(const Outcome& outcome) override;
  // Instead of Done: the store refused it, goes on, and changed nothing.
  void Refused();

  // Compares a store that was opened after the workload ended, perhaps in the middle of an
  // operation:
  // - Sessions acknowledged as durable are there, and no others; that of the operation under way
  //   may be there or not, as it was before or after the operation.
  // - A layer holds all below the durable watermark last acknowledged, at most what was sent, and
  //   after a truncation nothing of what was there before. All of it is durable.
  // - What was sent later is not there without what was sent before, over all sessions.
  // - Every byte is what was sent; answers in both modes and vectors of hits agree with it.
  // What is wrong, with what was done to the session of late; empty if nothing is. Goes on from
  // what was found.
  std::string Check(SessionStore& store, uint64_t seed);

  // Of all checks: positions of layers, and answers, that were compared.
  uint64_t tokens_checked() const { return tokens_checked_; }
  uint64_t answers_checked() const { return answers_checked_; }

 private:
  struct Sent {
    int64_t end = 0;
    uint64_t number = 0;
  };
  struct Layer {
    int64_t durable = 0;
    std::vector<Sent> sent;  // since the last check, in order
  };
  struct Held {
    SessionModel model{WorkloadFingerprint(), WorkloadLayers()};
    bool durable = true;
    std::map<uint32_t, Layer> layers;
  };
  using Sessions = std::map<std::string, Held>;

  // What was done to a session of late.
  std::string History(const std::string& id) const;
  static Held Cut(const Held& held, int64_t position);
  static Held Forked(const Held& held, const Operation& fork);
  void Note(const std::string& id, const Outcome& outcome, bool all_durable);
  // The states in which a session may be; none: it must not be there.
  std::vector<Held> Candidates(const std::string& id, bool* may_be_missing) const;
  static std::string Compare(const SessionDescription& found, const Held& held);
  // Takes what was found beyond `held`'s durable tokens as lost; the bounds have been compared.
  void Adopt(const SessionDescription& found, Held& held);
  std::string CheckContent(SessionStore& store, const std::string& id, const SessionModel& model);
  std::string CheckAnswer(SessionStore& store, const AttendItem& item, const SessionModel& model);
  std::string CheckSearch(SessionStore& store, const SearchRequest& request,
                          const SessionModel& model);

  Sessions sessions_;
  std::optional<Operation> in_flight_;
  std::string wrong_;                 // in what was acknowledged
  std::vector<std::string> history_;  // of operations and outcomes, as they are encoded
  uint64_t sent_ = 0;
  uint64_t last_kept_ = 0;            // by number, of the check under way
  uint64_t first_lost_ = UINT64_MAX;  // likewise
  std::mt19937_64 random_;
  uint64_t tokens_checked_ = 0;
  uint64_t answers_checked_ = 0;
};

}  // namespace attic

#endif  // ATTIC_TESTS_FAULT_SESSION_ORACLE_H_
