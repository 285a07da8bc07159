// Writes to and asks a cluster for as long as it is told to, and compares every answer with the
// right one. Reads commands from standard input, a line each: "mark NAME" begins an interval of the
// report, "end" or the end of the input ends the load. Prints "loaded" when the first tokens are
// acknowledged, in the end the report as JSON. Exit status 0 when no answer was wrong.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "client/cpp/client.h"
#include "client/cpp/local_client.h"
#include "tests/cluster/load_session.h"

namespace attic {
namespace {

// Longer than the sessions here become.
constexpr int64_t kOracleSegmentTokens = 63 * 1024;

struct Flags {
  std::string server;
  std::string prefix = "load";
  LoadShape shape;
  std::string ack_policy = "all";
  int sessions = 4;
  int readers = 2;
  int tokens = 4096;  // of each session before "loaded"
  double write_pause_ms = 50;
  double read_pause_ms = 0;
  double timeout_seconds = 10;
  uint64_t seed = 1;
  uint64_t content_seed = 1;
  bool durable = false;
  bool no_writes = false;  // once it has loaded
  bool wait = false;       // for a line of input before writing and asking
};

// What happened in one interval.
struct Interval {
  std::string name;
  absl::Time begin = absl::Now();
  std::vector<double> read_ms;
  std::vector<double> write_ms;
  int read_failures = 0;
  int write_failures = 0;
  int wrong = 0;
  std::map<std::string, int> errors;
  std::vector<std::string> examples;  // of wrong answers
};

constexpr size_t kExamplesMax = 10;

double Quantile(std::vector<double>& sorted, double q) {
  if (sorted.empty()) return 0;
  return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

nlohmann::json ToJson(Interval& interval, absl::Time end) {
  std::sort(interval.read_ms.begin(), interval.read_ms.end());
  std::sort(interval.write_ms.begin(), interval.write_ms.end());
  return {{"name", interval.name},
          {"seconds", absl::ToDoubleSeconds(end - interval.begin)},
          {"reads", interval.read_ms.size()},
          {"read_failures", interval.read_failures},
          {"read_median_ms", Quantile(interval.read_ms, 0.5)},
          {"read_p99_ms", Quantile(interval.read_ms, 0.99)},
          {"read_longest_ms", Quantile(interval.read_ms, 1)},
          {"writes", interval.write_ms.size()},
          {"write_failures", interval.write_failures},
          {"write_median_ms", Quantile(interval.write_ms, 0.5)},
          {"write_longest_ms", Quantile(interval.write_ms, 1)},
          {"wrong", interval.wrong},
          {"wrong_examples", interval.examples},
          {"errors", interval.errors}};
}

// Thread-safe.
class Report {
 public:
  void Mark(const std::string& name) {
    MutexLock lock(mutex_);
    Finish();
    current_ = Interval{.name = name};
  }

  void Read(absl::Duration took, const Asked& asked) {
    MutexLock lock(mutex_);
    if (asked.status.ok()) {
      current_.read_ms.push_back(absl::ToDoubleMilliseconds(took));
    } else {
      ++current_.read_failures;
      ++current_.errors[absl::StrCat("read: ", asked.status.ToString())];
    }
    if (!asked.wrong) return;
    ++current_.wrong;
    if (current_.examples.size() < kExamplesMax) current_.examples.push_back(asked.what);
  }

  void Write(absl::Duration took, const absl::Status& status) {
    MutexLock lock(mutex_);
    if (status.ok()) {
      current_.write_ms.push_back(absl::ToDoubleMilliseconds(took));
    } else {
      ++current_.write_failures;
      ++current_.errors[absl::StrCat("write: ", status.ToString())];
    }
  }

  nlohmann::json Finished() {
    MutexLock lock(mutex_);
    Finish();
    return finished_;
  }

 private:
  void Finish() ATTIC_REQUIRES(mutex_) { finished_.push_back(ToJson(current_, absl::Now())); }

  Mutex mutex_;
  Interval current_ ATTIC_GUARDED_BY(mutex_){.name = "start"};
  nlohmann::json finished_ ATTIC_GUARDED_BY(mutex_) = nlohmann::json::array();
};

class Load {
 public:
  explicit Load(const Flags& flags) : flags_(flags) {}

  absl::Status Open();
  absl::Status Fill();
  void Start();
  void Stop();
  // Asks about everything once more.
  void Verify();
  nlohmann::json Summary();

  Report report;

 private:
  static void Pause(double pause_ms, std::mt19937_64& random);
  void WriteLoop(int writer);
  void ReadLoop(int reader);
  void AskOnce(LoadSession& session, std::mt19937_64& random, AttendMode mode);
  absl::Duration timeout() const { return absl::Seconds(flags_.timeout_seconds); }

  const Flags flags_;
  std::unique_ptr<Client> cluster_;
  std::unique_ptr<Client> oracle_;
  std::vector<std::unique_ptr<LoadSession>> sessions_;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

absl::Status Load::Open() {
  auto cluster = ConnectClient({.address = flags_.server, .call_timeout = timeout()});
  if (!cluster.ok()) return cluster.status();
  cluster_ = *std::move(cluster);
  SessionStoreOptions options;
  options.threads = 1;
  // It is asked exactly only, so it needs no index: building one would slow the stores down.
  options.index.exact_scan_tokens_max = int64_t{1} << 40;
  options.index.segment_tokens = kOracleSegmentTokens;
  oracle_ = MakeLocalClient(options);
  for (int i = 0; i < flags_.sessions; ++i) {
    auto session =
        LoadSession::Open(*cluster_, *oracle_, absl::StrCat(flags_.prefix, "-", i),
                          flags_.content_seed * 1000 + static_cast<uint64_t>(i), flags_.shape);
    if (!session.ok()) return session.status();
    sessions_.push_back(*std::move(session));
  }
  return absl::OkStatus();
}

absl::Status Load::Fill() {
  for (const auto& session : sessions_) {
    while (session->acknowledged() < flags_.tokens) {
      const absl::Status written = session->WriteBatch(absl::Now() + timeout());
      if (!written.ok()) return written;
    }
  }
  return absl::OkStatus();
}

void Load::Start() {
  for (int writer = 0; writer < flags_.sessions && !flags_.no_writes; ++writer) {
    threads_.emplace_back([this, writer] { WriteLoop(writer); });
  }
  for (int reader = 0; reader < flags_.readers; ++reader) {
    threads_.emplace_back([this, reader] { ReadLoop(reader); });
  }
}

void Load::Stop() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
}

// For pause_ms on average. Threads that pause equally long would act at the same moments for
// seconds, and then between each other's: the medians of two intervals would differ for that alone.
void Load::Pause(double pause_ms, std::mt19937_64& random) {
  if (pause_ms <= 0) return;
  std::exponential_distribution<double> pause(1 / pause_ms);
  absl::SleepFor(absl::Milliseconds(pause(random)));
}

void Load::WriteLoop(int writer) {
  std::mt19937_64 random(flags_.seed * 1000 + static_cast<uint64_t>(writer));
  LoadSession& session = *sessions_[static_cast<size_t>(writer)];
  while (!stop_) {
    const absl::Time begin = absl::Now();
    const absl::Status written = session.WriteBatch(begin + timeout());
    report.Write(absl::Now() - begin, written);
    Pause(flags_.write_pause_ms, random);
  }
}

void Load::AskOnce(LoadSession& session, std::mt19937_64& random, AttendMode mode) {
  absl::Duration took;
  const Asked asked = session.Ask(random, mode, absl::Now() + timeout(), took);
  report.Read(took, asked);
}

void Load::ReadLoop(int reader) {
  std::mt19937_64 random(flags_.seed * 100 + static_cast<uint64_t>(reader));
  while (!stop_) {
    LoadSession& session = *sessions_[random() % sessions_.size()];
    AskOnce(session, random, random() % 2 == 0 ? AttendMode::kExact : AttendMode::kIndexed);
    Pause(flags_.read_pause_ms, random);
  }
}

void Load::Verify() {
  report.Mark("verify");
  std::mt19937_64 random(flags_.seed);
  for (const auto& session : sessions_) {
    for (int i = 0; i < 20; ++i) {
      AskOnce(*session, random, i % 2 == 0 ? AttendMode::kExact : AttendMode::kIndexed);
    }
  }
}

nlohmann::json Load::Summary() {
  nlohmann::json acknowledged;
  for (const auto& session : sessions_) acknowledged[session->id()] = session->acknowledged();
  return {{"seed", flags_.seed}, {"acknowledged", acknowledged}, {"intervals", report.Finished()}};
}

int Run(const Flags& flags) {
  Load load(flags);
  for (const absl::Status& status : {load.Open(), load.Fill()}) {
    if (!status.ok()) {
      std::fprintf(stderr, "error: %s\n", status.ToString().c_str());
      return 2;
    }
  }
  std::printf("loaded\n");
  std::fflush(stdout);
  if (flags.wait) {
    std::string go;
    std::getline(std::cin, go);
  }
  load.Start();
  for (std::string line; std::getline(std::cin, line) && line != "end";) {
    if (line.rfind("mark ", 0) == 0) load.report.Mark(line.substr(5));
  }
  load.Stop();
  load.Verify();
  const nlohmann::json summary = load.Summary();
  std::printf("%s\n", summary.dump().c_str());
  int wrong = 0;
  for (const auto& interval : summary["intervals"]) wrong += interval["wrong"].get<int>();
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  attic::Flags flags;
  CLI::App app("Loads a cluster and checks every answer.", "cluster_load");
  app.add_option("--server", flags.server, "addresses of stores")->required();
  app.add_option("--prefix", flags.prefix, "of the sessions' ids")->capture_default_str();
  app.add_option("--sessions", flags.sessions)->capture_default_str();
  app.add_option("--readers", flags.readers, "threads that ask")->capture_default_str();
  app.add_option("--tokens", flags.tokens, "of each session at the start")->capture_default_str();
  app.add_option("--layers", flags.shape.layers)->capture_default_str();
  app.add_option("--head-dim", flags.shape.head_dim)->capture_default_str();
  app.add_option("--batch-tokens", flags.shape.batch_tokens, "of a write")->capture_default_str();
  app.add_option("--replicas", flags.shape.replication.replicas)->capture_default_str();
  app.add_option("--ack-policy", flags.ack_policy, "one, quorum or all")->capture_default_str();
  app.add_option("--shard-tokens", flags.shape.replication.shard_tokens)->capture_default_str();
  app.add_option("--write-pause-ms", flags.write_pause_ms)->capture_default_str();
  app.add_option("--read-pause-ms", flags.read_pause_ms)->capture_default_str();
  app.add_option("--timeout", flags.timeout_seconds, "of a call")->capture_default_str();
  app.add_option("--seed", flags.seed)->capture_default_str();
  app.add_option("--content-seed", flags.content_seed, "of what is written")->capture_default_str();
  app.add_flag("--durable", flags.durable);
  app.add_flag("--no-writes", flags.no_writes, "once it has loaded");
  app.add_flag("--wait", flags.wait, "for a line of input before writing and asking");
  CLI11_PARSE(app, argc, argv);
  if (flags.durable) flags.shape.durability = attic::Durability::kDurable;
  using attic::AckPolicy;
  flags.shape.replication.ack_policy = flags.ack_policy == "one"      ? AckPolicy::kOne
                                       : flags.ack_policy == "quorum" ? AckPolicy::kQuorum
                                                                      : AckPolicy::kAll;
  return attic::Run(flags);
}
