// Single bits flipped in the files of a data directory: every answer is right or refused, and what
// is missing is named.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "server/session/session_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/session_workload.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/session/session_model.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kFlips = 500;
#else
constexpr uint64_t kFlips = 5000;
#endif
constexpr int kThreads = 4;  // much of the time goes into waiting for threads to end
constexpr absl::Duration kPatience = absl::Seconds(60);
// What a head had learnt is looked up elsewhere when it is damaged: estimates differ then.
constexpr double kEstimateTolerance = 0.2;

// Vectors are never in memory.
SessionStoreOptions FlipOptions(const std::string& directory) {
  SessionStoreOptions options = FaultOptions(
      directory,
      std::make_shared<FaultFileSystem>(MachineFileSystem(), directory, /*keep_lost=*/false));
  options.threads = 1;
  options.index.exact_scan_tokens_max = 0;
  options.disk.tier.high_watermark = 0.0001;
  options.disk.tier.low_watermark = 0.00005;
  options.disk.tier.cache_bytes_min = 64u << 10;
  return options;
}

struct Question {
  std::string id;
  uint32_t layer = 0;
  AttendMode mode = AttendMode::kExact;
  PositionRange range;
};

// What the directory holds when nothing is wrong with it.
struct Expected {
  std::map<std::string, SessionModel> models;
  std::vector<Question> questions;
  std::vector<float> queries;
  std::vector<AttendAnswer> answers;  // of the questions
};

absl::StatusOr<AttendAnswer> Ask(SessionStore& store, const Question& question,
                                 const std::vector<float>& queries) {
  const AttendItem item{.session_id = question.id,
                        .layer = question.layer,
                        .range = question.range,
                        .mode = question.mode,
                        .queries = queries};
  auto answers = store.Attend({&item, 1}, absl::InfiniteFuture());
  if (!answers.ok()) return answers.status();
  if (!answers->front().status.ok()) return answers->front().status;
  return std::move(answers->front());
}

// Fills a directory with sessions, and copies it while it is in use and once it is closed.
class Original {
 public:
  Original() {
    const std::string working = folder_.file("working");
    auto opened = SessionStore::Open(FlipOptions(working));
    EXPECT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    Fill();
    Wait();
    fs::copy(working, folder_.file("in_use"), fs::copy_options::recursive);
    store_.reset();
    fs::copy(working, folder_.file("closed"), fs::copy_options::recursive);
    Learn(working);
  }

  const Expected& expected() const { return expected_; }
  std::string directory(bool in_use) const { return folder_.file(in_use ? "in_use" : "closed"); }

 private:
  void Wait() {
    const absl::Status waited = store_->WaitForBuilds(absl::Now() + kPatience);
    EXPECT_TRUE(waited.ok()) << waited;
  }
  void Append(const std::string& id, uint32_t layer, int64_t count) {
    SessionModel& model = expected_.models.at(id);
    const int64_t begin = model.watermark(layer);
    const Tokens tokens = ContentOf(random_(), static_cast<size_t>(count));
    AppendBatch batch = tokens.Batch(id, layer, begin);
    const Fingerprint fingerprint = WorkloadFingerprint();
    const std::vector<float> sample =
        RandomFloats(size_t{32} * fingerprint.q_heads * fingerprint.head_dim, random_);
    batch.query_sample = sample;
    const auto ack = store_->Append(batch, absl::Now() + kPatience);
    EXPECT_TRUE(ack.ok()) << ack.status();
    model.Append(layer, tokens);
  }
  void Open(const std::string& id) {
    const auto opened = store_->OpenSession({.session_id = id,
                                             .fingerprint = WorkloadFingerprint(),
                                             .stored_layers = WorkloadLayers(),
                                             .durability = Durability::kDurable});
    EXPECT_TRUE(opened.ok()) << opened.status();
    expected_.models.emplace(id, SessionModel(WorkloadFingerprint(), WorkloadLayers()));
  }
  void Fill() {
    for (const char* id : {"long", "cut", "rows"}) Open(id);
    for (const uint32_t layer : WorkloadLayers()) {
      for (int64_t count : {300, 300, 250}) Append("long", layer, count);
      for (int64_t count : {300, 300}) Append("cut", layer, count);
      Append("rows", layer, 90);
    }
    Wait();
    EXPECT_TRUE(store_->TruncateSession("cut", 400).ok());
    expected_.models.at("cut").Truncate(400);
    EXPECT_TRUE(store_->ForkSession("long", {.position = 600, .new_session_id = "fork"}).ok());
    expected_.models.emplace("fork", expected_.models.at("long"));
    expected_.models.at("fork").Truncate(600);
    Append("cut", 0, 30);
    Append("fork", 3, 200);
    Wait();
    for (const auto& [id, model] : expected_.models) {
      EXPECT_TRUE(store_->FlushSession(id, absl::Now() + kPatience).ok());
    }
  }
  // Notes the answers, which must be the same every time.
  void Learn(const std::string& working) {
    const Fingerprint fingerprint = WorkloadFingerprint();
    expected_.queries = RandomFloats(size_t{fingerprint.q_heads} * fingerprint.head_dim, random_);
    for (const auto& [id, model] : expected_.models) {
      for (const uint32_t layer : WorkloadLayers()) {
        for (const AttendMode mode : {AttendMode::kExact, AttendMode::kIndexed}) {
          expected_.questions.push_back({id, layer, mode, {0, model.watermark(layer)}});
          expected_.questions.push_back({id, layer, mode, {0, 80}});
        }
      }
    }
    auto opened = SessionStore::Open(FlipOptions(working));
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    Wait();
    for (const Question& question : expected_.questions) {
      auto answer = Ask(*store_, question, expected_.queries);
      ASSERT_TRUE(answer.ok()) << answer.status();
      const SessionModel::Answer oracle =
          expected_.models.at(question.id)
              .Attend(question.layer, expected_.queries, 0, question.range.end);
      for (size_t q = 0; q < oracle.log_sum_exp.size(); ++q) {
        EXPECT_NEAR(answer->log_sum_exp[q], oracle.log_sum_exp[q],
                    question.mode == AttendMode::kExact ? 2e-4 : kEstimateTolerance);
      }
      expected_.answers.push_back(*std::move(answer));
    }
    store_.reset();
  }

  const TemporaryFolder folder_;
  std::mt19937_64 random_{7};
  std::unique_ptr<SessionStore> store_;
  Expected expected_;
};

// What came of a flip.
struct Verdict {
  std::string wrong;     // not empty: what must not be
  bool refused = false;  // to open
  bool damage = false;   // was named
  bool failed = false;   // a question was refused
  bool other_estimate = false;
};

// Asks everything of a store on a directory in which something may be damaged.
class Examination {
 public:
  Examination(const std::string& directory, const Expected& expected)
      : directory_(directory), expected_(expected) {}

  Verdict Examine() {
    auto opened = SessionStore::Open(FlipOptions(directory_));
    if (!opened.ok()) {
      verdict_.refused = true;
      if (!absl::StrContains(opened.status().message(), directory_)) {
        Wrong(absl::StrCat("refused without naming a file: ", opened.status().ToString()));
      }
      return verdict_;
    }
    SessionStore& store = **opened;
    // Whether something cannot be built is not the question.
    store.WaitForBuilds(absl::Now() + kPatience).IgnoreError();
    for (const SessionDescription& found : store.ListSessions("", 100)) {
      if (!expected_.models.contains(found.session_id)) Wrong("a session " + found.session_id);
    }
    for (const auto& [id, model] : expected_.models) Describe(store, id, model);
    for (size_t i = 0; i < expected_.questions.size(); ++i) {
      Ask(store, expected_.questions[i], expected_.answers[i]);
    }
    for (const auto& [id, model] : expected_.models) CompareHeld(store, id, model);
    verdict_.damage = !store.Status().damage.empty();
    if (missing_ && !verdict_.damage) Wrong("something is missing, but no damage was named");
    return verdict_;
  }

 private:
  void Wrong(std::string what) {
    if (verdict_.wrong.empty()) verdict_.wrong = std::move(what);
  }

  void Describe(SessionStore& store, const std::string& id, const SessionModel& model) {
    const auto description = store.DescribeSession(id);
    if (!description.ok()) {
      missing_ = true;
      return;
    }
    for (const LayerDescription& layer : description->layers) {
      const int64_t watermark = model.watermark(layer.layer);
      if (layer.watermark < watermark) missing_ = true;
      if (layer.watermark > watermark) {
        Wrong(absl::StrCat(id, " holds ", layer.watermark, " tokens, not ", watermark));
      }
    }
  }

  void Refused(const std::string& what, const absl::Status& status) {
    verdict_.failed = true;
    const bool named = absl::StrContains(status.message(), directory_) ||
                       absl::StrContains(status.message(), "session_id");
    if (absl::IsNotFound(status) && missing_) return;
    if (!named || !(absl::IsDataLoss(status) || absl::IsUnavailable(status))) {
      Wrong(absl::StrCat(what, ": ", status.ToString()));
    }
  }

  void Ask(SessionStore& store, const Question& question, const AttendAnswer& expected) {
    const auto answer = attic::Ask(store, question, expected_.queries);
    const std::string what =
        absl::StrCat(question.id, " layer ", question.layer, " to ", question.range.end);
    if (!answer.ok()) return Refused(what, answer.status());
    if (answer->range != expected.range) {
      // Only what is held is answered; that some is not has been seen.
      if (!missing_) Wrong(what + ": another range was answered");
      return;
    }
    if (answer->output == expected.output && answer->log_sum_exp == expected.log_sum_exp) return;
    verdict_.other_estimate = true;
    if (question.mode == AttendMode::kExact) return Wrong(what + ": another answer");
    for (size_t q = 0; q < expected.log_sum_exp.size(); ++q) {
      const double error = std::abs(answer->log_sum_exp[q] - expected.log_sum_exp[q]);
      if (!(error <= kEstimateTolerance)) Wrong(what + ": quite another estimate");
    }
  }

  void CompareHeld(SessionStore& store, const std::string& id, const SessionModel& model) {
    for (const uint32_t layer : WorkloadLayers()) {
      const auto description = store.DescribeSession(id);
      if (!description.ok()) return;
      int64_t held = model.watermark(layer);
      for (const LayerDescription& found : description->layers) {
        if (found.layer == layer) held = std::min(held, found.watermark);
      }
      if (held == 0) continue;
      const auto ack =
          store.Append(model.Held(layer, 0, held).Batch(id, layer, 0), absl::Now() + kPatience);
      if (!ack.ok()) Refused(absl::StrCat(id, " layer ", layer, " compared"), ack.status());
    }
  }

  const std::string directory_;
  const Expected& expected_;
  Verdict verdict_;
  bool missing_ = false;
};

// Copies a directory but for what is never changed in place, and flips one bit of a file. What was
// done.
std::string CopyWithFlip(const std::string& from, const std::string& to, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> files;
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    files.push_back(fs::relative(entry.path(), from).string());
    bytes += entry.file_size();
  }
  std::sort(files.begin(), files.end());
  // Half of the flips ask for a file, half for a byte: small files get their share.
  size_t chosen = random() % files.size();
  if (random() % 2 == 0) {
    uint64_t at = random() % bytes;
    for (chosen = 0; at >= fs::file_size(from + "/" + files[chosen]); ++chosen) {
      at -= fs::file_size(from + "/" + files[chosen]);
    }
  }
  for (const char* name : {"", "/records", "/segments"}) fs::create_directory(to + name);
  for (size_t i = 0; i < files.size(); ++i) {
    const bool linked = i != chosen && absl::StartsWith(files[i], "segments/");
    if (linked) {
      fs::create_hard_link(from + "/" + files[i], to + "/" + files[i]);
    } else {
      fs::copy_file(from + "/" + files[i], to + "/" + files[i]);
    }
  }
  const std::string path = to + "/" + files[chosen];
  const uint64_t byte = random() % fs::file_size(path);
  const int bit = static_cast<int>(random() % 8);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(byte));
  const char old = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(byte));
  file.put(static_cast<char>(old ^ (1 << bit)));
  return absl::StrCat(files[chosen], " byte ", byte, " bit ", bit);
}

struct Counts {
  uint64_t refused = 0, damage = 0, failed = 0, other_estimate = 0, unnoticed = 0;
};

class FlipTest : public ::testing::Test {
 protected:
  void Flip(uint64_t seed) {
    const TemporaryFolder folder;
    const bool in_use = seed % 2 == 0;
    const std::string directory = folder.file("store");
    const std::string flip = CopyWithFlip(original_.directory(in_use), directory, seed);
    const std::string what = absl::StrCat("ATTIC_TEST_SEED=", seed, ": ", flip, " of a directory ",
                                          in_use ? "in use" : "that was closed");
    if (verbose_) std::cerr << what << std::endl;
    const Verdict verdict = Examination(directory, original_.expected()).Examine();
    MutexLock lock(mutex_);
    // Only what a head had learnt may be done without, and that is among the records.
    if (verdict.other_estimate && !verdict.damage && absl::StartsWith(flip, "segments/")) {
      ADD_FAILURE() << what << "\nother estimates from a damaged segment";
    }
    counts_.refused += verdict.refused;
    counts_.damage += verdict.damage;
    counts_.failed += verdict.failed && !verdict.damage;
    counts_.other_estimate += verdict.other_estimate;
    counts_.unnoticed += !verdict.refused && !verdict.damage && !verdict.failed;
    if (verdict.wrong.empty()) return;
    if (++wrong_ <= 20) ADD_FAILURE() << what << "\n" << verdict.wrong;
  }

  const Original original_;
  const bool verbose_ = std::getenv("ATTIC_TEST_VERBOSE") != nullptr;
  Mutex mutex_;
  Counts counts_ ATTIC_GUARDED_BY(mutex_);
  int wrong_ ATTIC_GUARDED_BY(mutex_) = 0;
};

TEST_F(FlipTest, WithoutAFlipAllIsRightToTheLastBit) {
  for (const bool in_use : {false, true}) {
    const Verdict verdict =
        Examination(original_.directory(in_use), original_.expected()).Examine();
    EXPECT_EQ(verdict.wrong, "");
    EXPECT_FALSE(verdict.refused || verdict.damage || verdict.failed || verdict.other_estimate);
  }
}

TEST_F(FlipTest, NoFlipLeadsToAWrongAnswer) {
  const char* given = std::getenv("ATTIC_TEST_SEED");
  uint64_t next = given != nullptr ? std::stoull(given) : 1;
  const uint64_t last = given != nullptr ? next + 1 : kFlips + 1;
  Mutex mutex;
  const auto work = [&] {
    for (;;) {
      uint64_t seed;
      {
        MutexLock lock(mutex);
        if (next == last) return;
        seed = next++;
      }
      Flip(seed);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(mutex_);
  EXPECT_EQ(wrong_, 0);
  std::cout << last - (given != nullptr ? last - 1 : 1) << " flips: " << counts_.refused
            << " directories refused, " << counts_.damage << " opened with damage named, "
            << counts_.failed << " noticed by a question, " << counts_.unnoticed
            << " without effect; " << counts_.other_estimate
            << " gave other estimates within the tolerance" << std::endl;
  if (given != nullptr) return;
  EXPECT_GT(counts_.refused + counts_.damage + counts_.failed, kFlips / 4);
}

}  // namespace
}  // namespace attic
