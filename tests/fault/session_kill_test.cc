// kill -9 of a process that runs a store, at random moments and at every kind of operation on the
// disk: what was acknowledged as durable is there afterwards, and nothing that was not sent.
//
// The process that is killed is this program itself, started with --workload. It says what it is
// about to do, and what was acknowledged, on a pipe.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/mutex.h"
#include "server/session/session_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/session_oracle.h"
#include "tests/fault/session_workload.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr int kReportFd = 3;
#if defined(__SANITIZE_ADDRESS__)
constexpr int kKills = 100;
#else
constexpr int kKills = 300;
#endif
constexpr int kKillsMax = 450;    // when some kinds of operations are hard to meet
constexpr int kNamedSteps = 250;  // of a process that waits for an operation to be killed at
constexpr int kDryRuns = 3;
constexpr int kOften = 20;  // operations of a kind in one process

// What is done to which kind of file: numbers of files are left out.
std::string KindOf(const std::string& name, const std::string& parent) {
  std::string plain = name;
  if (const size_t at = plain.find(parent); at != std::string::npos) {
    plain.replace(at, parent.size(), "..");
  }
  // Hexadecimal.
  constexpr std::string_view kSegments = "segments/";
  if (const size_t at = plain.find(kSegments); at != std::string::npos) {
    const size_t begin = at + kSegments.size();
    for (size_t i = begin; i < plain.size() && plain[i] != '.'; ++i) plain[i] = '0';
  }
  std::string kind;
  for (const char c : plain) {
    const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
    if (!digit) kind += c;
    if (digit && (kind.empty() || kind.back() != '#')) kind += '#';
  }
  return kind;
}

// --- The process that is killed

struct WorkloadArguments {
  std::string directory;
  uint64_t seed = 0;
  int first_id = 0;
  int steps = 0;
  std::string kill_kind;    // empty: killed from outside, if at all
  int kill_occurrence = 0;  // from 1 on
  bool torn = false;        // an append that is killed leaves a part of its bytes
};

// Lines are shorter than PIPE_BUF: each arrives whole or not at all.
void Report(const std::string& line) {
  const std::string whole = line + "\n";
  ATTIC_CHECK(write(kReportFd, whole.data(), whole.size()) == static_cast<ssize_t>(whole.size()));
}

class ReportingListener : public WorkloadListener {
 public:
  void Begin(const Operation& operation) override { Report("B " + operation.Encode()); }
  void Done(const Outcome& outcome) override { Report("D " + outcome.Encode()); }
};

// Reports each kind of operation when it is seen first and when it was seen often, and ends the
// process where it was told to.
class KillPoint {
 public:
  explicit KillPoint(const WorkloadArguments& arguments)
      : arguments_(arguments),
        parent_(std::filesystem::path(arguments.directory).parent_path().string()) {}

  std::optional<Fault> At(const std::string& name) {
    const std::string kind = KindOf(name, parent_);
    MutexLock lock(mutex_);
    const int occurrence = ++seen_[kind];
    if (occurrence == 1 || occurrence == kOften) Report(absl::StrCat("N ", occurrence, " ", kind));
    if (kind != arguments_.kill_kind || occurrence != arguments_.kill_occurrence) return {};
    return Fault{.kind = FaultKind::kCall, .torn = arguments_.torn, .call = [kind] {
                   Report("K " + kind);
                   raise(SIGKILL);
                 }};
  }

 private:
  const WorkloadArguments arguments_;
  const std::string parent_;
  Mutex mutex_;
  std::map<std::string, int> seen_ ATTIC_GUARDED_BY(mutex_);
};

int RunWorkload(const WorkloadArguments& arguments) {
  KillPoint kill_point(arguments);
  const auto files = std::make_shared<FaultFileSystem>(MachineFileSystem(), arguments.directory,
                                                       /*keep_lost=*/false);
  files->FailWhere([&kill_point](const std::string& name) { return kill_point.At(name); });
  auto store = SessionStore::Open(FaultOptions(arguments.directory, files));
  if (!store.ok()) {
    Report("E open: " + store.status().ToString().substr(0, 1000));
    return 1;
  }
  if (const auto read = (*store)->WaitForBuilds(absl::Now() + absl::Seconds(60)); !read.ok()) {
    Report("E wait: " + read.ToString().substr(0, 1000));
    return 1;
  }
  Report("R");
  ReportingListener listener;
  Workload workload(arguments.seed, arguments.first_id, **store, listener);
  for (int step = 0; step < arguments.steps; ++step) {
    const absl::Status done = workload.Step();
    if (done.ok()) continue;
    Report("E " + done.ToString().substr(0, 1000));
    return 1;
  }
  store->reset();
  return 0;
}

// --- The process that watches

// Where in the life of a process it is killed, if not by itself.
struct KillTime {
  bool while_opening = false;  // counted from its start, not from when the store is open
  absl::Duration after;
};

struct ProcessEnd {
  bool killed = false;
  std::string killed_at;        // a kind, if it was killed by itself
  std::set<std::string> kinds;  // of operations that were seen
  std::set<std::string> often;  // those seen often
  std::string error;
};

class WorkloadProcess {
 public:
  WorkloadProcess(const WorkloadArguments& arguments, SessionOracle& oracle) : oracle_(oracle) {
    int ends[2];
    ATTIC_CHECK(pipe2(ends, O_CLOEXEC) == 0);
    report_ = ends[0];
    const std::vector<std::string> words = {"session_kill_test",
                                            "--workload",
                                            arguments.directory,
                                            absl::StrCat(arguments.seed),
                                            absl::StrCat(arguments.first_id),
                                            absl::StrCat(arguments.steps),
                                            arguments.kill_kind,
                                            absl::StrCat(arguments.kill_occurrence),
                                            arguments.torn ? "1" : "0"};
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], kReportFd);
    ATTIC_CHECK(posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    started_ = absl::Now();
  }
  ~WorkloadProcess() { close(report_); }

  // Listens until it ends.
  ProcessEnd Watch(const std::optional<KillTime>& kill_time) {
    std::string pending;
    bool sent = false;
    for (;;) {
      const std::optional<absl::Time> kill_at = KillAt(kill_time);
      int timeout_ms = -1;
      if (kill_at && !sent) {
        const absl::Duration left = *kill_at - absl::Now();
        if (left <= absl::ZeroDuration()) {
          kill(pid_, SIGKILL);
          sent = true;
        } else {
          timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(left)) + 1;
        }
      }
      pollfd descriptor{.fd = report_, .events = POLLIN, .revents = 0};
      if (poll(&descriptor, 1, timeout_ms) <= 0) continue;
      char bytes[4096];
      const ssize_t count = read(report_, bytes, sizeof(bytes));
      if (count <= 0) break;
      pending.append(bytes, static_cast<size_t>(count));
      for (size_t end; (end = pending.find('\n')) != std::string::npos;) {
        Hear(pending.substr(0, end));
        pending.erase(0, end + 1);
      }
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    end_.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!end_.killed && status != 0 && end_.error.empty()) {
      end_.error = absl::StrCat("ended with status ", status);
    }
    return end_;
  }

 private:
  std::optional<absl::Time> KillAt(const std::optional<KillTime>& kill_time) const {
    if (!kill_time) return {};
    if (kill_time->while_opening) return started_ + kill_time->after;
    if (!ready_) return {};
    return *ready_ + kill_time->after;
  }

  void HearKind(const std::string& occurrence_and_kind) {
    const size_t space = occurrence_and_kind.find(' ');
    const std::string kind = occurrence_and_kind.substr(space + 1);
    end_.kinds.insert(kind);
    if (occurrence_and_kind.substr(0, space) != "1") end_.often.insert(kind);
  }

  void Hear(const std::string& line) {
    const std::string rest = line.size() > 2 ? line.substr(2) : "";
    switch (line.empty() ? ' ' : line[0]) {
      case 'R':
        ready_ = absl::Now();
        break;
      case 'B':
        oracle_.Begin(Operation::Decode(rest));
        break;
      case 'D':
        oracle_.Done(Outcome::Decode(rest));
        break;
      case 'N':
        HearKind(rest);
        break;
      case 'K':
        end_.killed_at = rest;
        break;
      default:
        end_.error = rest;
    }
  }

  SessionOracle& oracle_;
  pid_t pid_ = 0;
  int report_ = -1;
  absl::Time started_;
  std::optional<absl::Time> ready_;
  ProcessEnd end_;
};

// A directory that lives through some processes, and what it must hold.
class Lineage {
 public:
  ProcessEnd Run(WorkloadArguments arguments, const std::optional<KillTime>& kill_time) {
    arguments.directory = directory_;
    arguments.first_id = next_id_;
    next_id_ += 1000000;
    return WorkloadProcess(arguments, oracle_).Watch(kill_time);
  }
  std::string Check(uint64_t seed) {
    const auto files = std::make_shared<FaultFileSystem>(MachineFileSystem(), directory_,
                                                         /*keep_lost=*/false);
    auto store = SessionStore::Open(FaultOptions(directory_, files));
    if (!store.ok()) return "open: " + store.status().ToString();
    return oracle_.Check(**store, seed);
  }
  const SessionOracle& oracle() const { return oracle_; }

 private:
  const TemporaryFolder folder_;
  const std::string directory_ = folder_.file("store");
  SessionOracle oracle_;
  int next_id_ = 1;
};

class KillLoop {
 public:
  explicit KillLoop(uint64_t seed) : random_(seed) {}

  void DryRun() {
    Lineage lineage;
    const uint64_t seed = random_();
    // First a new directory, then one that was used.
    for (std::set<std::string>* seen : {&seen_, &seen_again_}) {
      const ProcessEnd end = lineage.Run({.seed = seed, .steps = kNamedSteps}, {});
      ASSERT_EQ(end.error, "");
      ASSERT_FALSE(end.killed);
      ASSERT_EQ(lineage.Check(seed), "");
      Note(end);
      seen->insert(end.kinds.begin(), end.kinds.end());
    }
  }

  // One process, killed or not, and the check of what it leaves.
  void Round() {
    WorkloadArguments arguments{.seed = random_(), .steps = kNamedSteps};
    std::optional<KillTime> kill_time;
    bool start_anew = lineage_ == nullptr || random_() % 4 == 0;
    if (rounds_++ % 2 == 0) {
      arguments.steps = 1000000;
      const bool while_opening = random_() % 5 == 0;
      kill_time =
          KillTime{while_opening, absl::Microseconds(random_() % (while_opening ? 60000 : 300000))};
    } else {
      const std::string kind = ChooseKind();
      arguments.kill_kind = kind;
      arguments.kill_occurrence =
          1 + static_cast<int>(often_.contains(kind) ? random_() % kOften : 0);
      arguments.torn = random_() % 2 == 0;
      start_anew = start_anew || !seen_again_.contains(kind);
    }
    if (start_anew) {
      Count();
      lineage_ = std::make_unique<Lineage>();
    }
    SCOPED_TRACE(absl::StrCat("round ", rounds_, ", kind \"", arguments.kill_kind,
                              "\", occurrence ", arguments.kill_occurrence));
    const ProcessEnd end = lineage_->Run(arguments, kill_time);
    ASSERT_EQ(end.error, "");
    Note(end);
    if (end.killed) ++kills_;
    if (!end.killed_at.empty()) hit_.insert(end.killed_at);
    ASSERT_EQ(lineage_->Check(arguments.seed), "");
  }

  int kills() const { return kills_; }
  std::set<std::string> NotHit() const {
    std::set<std::string> rest;
    std::set_difference(seen_.begin(), seen_.end(), hit_.begin(), hit_.end(),
                        std::inserter(rest, rest.end()));
    return rest;
  }
  std::string Summary() {
    Count();
    lineage_.reset();
    return absl::StrCat(kills_, " kills in ", rounds_, " processes, at ", hit_.size(), " of ",
                        seen_.size(), " kinds of operations; ", tokens_, " tokens and ", answers_,
                        " answers compared\nkinds: ", absl::StrJoin(hit_, ", "));
  }

 private:
  void Note(const ProcessEnd& end) {
    seen_.insert(end.kinds.begin(), end.kinds.end());
    often_.insert(end.often.begin(), end.often.end());
  }
  std::string ChooseKind() {
    const std::set<std::string> rest = NotHit();
    const std::set<std::string>& among = rest.empty() ? seen_ : rest;
    auto chosen = among.begin();
    std::advance(chosen, static_cast<int64_t>(random_() % among.size()));
    return *chosen;
  }
  void Count() {
    if (lineage_ == nullptr) return;
    tokens_ += lineage_->oracle().tokens_checked();
    answers_ += lineage_->oracle().answers_checked();
  }

  std::mt19937_64 random_;
  std::unique_ptr<Lineage> lineage_;
  std::set<std::string> seen_, hit_;  // kinds
  std::set<std::string> often_;       // of these, seen often by one process
  std::set<std::string> seen_again_;  // seen in a directory that was used before
  int rounds_ = 0;
  int kills_ = 0;
  uint64_t tokens_ = 0;
  uint64_t answers_ = 0;
};

TEST(SessionKill, NothingDurableIsLostAndNothingInvented) {
  const char* given = std::getenv("ATTIC_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device()();
  std::cout << "seed " << seed << std::endl;
  SCOPED_TRACE(absl::StrCat("ATTIC_TEST_SEED=", seed));
  KillLoop loop(seed);
  for (int run = 0; run < kDryRuns && !HasFatalFailure(); ++run) loop.DryRun();
  while (!HasFatalFailure() &&
         (loop.kills() < kKills || (!loop.NotHit().empty() && loop.kills() < kKillsMax))) {
    loop.Round();
  }
  EXPECT_EQ(absl::StrJoin(loop.NotHit(), ", "), "") << "kinds of operations never killed at";
  std::cout << loop.Summary() << std::endl;
}

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  if (argc == 9 && std::strcmp(argv[1], "--workload") == 0) {
    return attic::RunWorkload({.directory = argv[2],
                               .seed = std::stoull(argv[3]),
                               .first_id = std::stoi(argv[4]),
                               .steps = std::stoi(argv[5]),
                               .kill_kind = argv[6],
                               .kill_occurrence = std::stoi(argv[7]),
                               .torn = std::strcmp(argv[8], "1") == 0});
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
