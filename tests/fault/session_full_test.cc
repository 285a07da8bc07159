// Sessions on a disk that is full, or fails, for a while: what cannot be kept is refused, what is
// held is answered, and all goes on by itself once there is room.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/session_oracle.h"
#include "tests/fault/session_workload.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

struct DiskFault {
  const char* name;
  FaultKind kind;
  absl::StatusCode code;
};

class SessionFullTest : public ::testing::TestWithParam<DiskFault> {
 protected:
  using Kind = Operation::Kind;

  void SetUp() override {
    Open();
    for (const char* id : {"a", "b"}) ASSERT_TRUE(Do({.kind = Kind::kOpen, .id = id}).ok());
  }
  void Open() {
    auto opened = SessionStore::Open(FaultOptions(directory_, files_));
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }
  void Reopen() {
    store_.reset();
    Open();
    ASSERT_EQ(oracle_.Check(*store_, 1), "");
  }
  void SetFault(bool fault) {
    if (GetParam().kind == FaultKind::kNoSpace) {
      files_->SetNoSpace(fault);
    } else {
      files_->SetIoError(fault);
    }
  }

  absl::Status Do(const Operation& operation) {
    oracle_.Begin(operation);
    const auto outcome = Execute(*store_, operation);
    if (outcome.ok()) {
      oracle_.Done(*outcome);
    } else {
      oracle_.Refused();
    }
    return outcome.status();
  }
  void ExpectRefused(const Operation& operation) {
    const absl::Status refused = Do(operation);
    EXPECT_EQ(refused.code(), GetParam().code) << refused;
  }
  Operation Append(const std::string& id, uint32_t layer, int64_t count) {
    Operation append{.kind = Kind::kAppend, .id = id, .layer = layer, .count = count};
    append.position = Watermark(id, layer);
    append.content = random_() % 1000000007;
    return append;
  }
  Operation RandomAppend() {
    return Append(random_() % 2 == 0 ? "a" : "b", WorkloadLayers()[random_() % 2],
                  1 + static_cast<int64_t>(random_() % 300));
  }
  int64_t Watermark(const std::string& id, uint32_t layer) {
    const auto description = store_->DescribeSession(id);
    EXPECT_TRUE(description.ok()) << description.status();
    for (const LayerDescription& found : description->layers) {
      if (found.layer == layer) return found.watermark;
    }
    return -1;
  }
  // Every question about what is held is answered.
  void ExpectAnswers() {
    const Fingerprint fingerprint = WorkloadFingerprint();
    const std::vector<float> queries =
        RandomFloats(size_t{fingerprint.q_heads} * fingerprint.head_dim, random_);
    for (const char* id : {"a", "b"}) {
      for (const uint32_t layer : WorkloadLayers()) {
        for (const AttendMode mode : {AttendMode::kExact, AttendMode::kIndexed}) {
          const AttendItem item{.session_id = id, .layer = layer, .mode = mode, .queries = queries};
          const auto answers = store_->Attend({&item, 1}, absl::InfiniteFuture());
          ASSERT_TRUE(answers.ok()) << answers.status();
          ASSERT_TRUE(answers->front().status.ok()) << answers->front().status;
          EXPECT_EQ(answers->front().range.end, Watermark(id, layer));
        }
      }
    }
  }
  // Until every segment is built and written.
  void ExpectAllWritten() {
    const absl::Time deadline = absl::Now() + kPatience;
    absl::Status waited;
    do {
      waited = store_->WaitForBuilds(deadline);
      if (waited.ok()) return;
      absl::SleepFor(absl::Milliseconds(10));
    } while (absl::Now() < deadline);
    FAIL() << waited;
  }

  const TemporaryFolder folder_;
  const std::string directory_ = folder_.file("store");
  const std::shared_ptr<FaultFileSystem> files_ =
      std::make_shared<FaultFileSystem>(MachineFileSystem(), directory_);
  SessionOracle oracle_;
  std::unique_ptr<SessionStore> store_;
  std::mt19937_64 random_{5};
};

TEST_P(SessionFullTest, WhatCannotBeKeptIsRefusedAndLaterAccepted) {
  for (int round = 0; round < 5 && !HasFatalFailure(); ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(Do(RandomAppend()).ok());
    if (round % 2 == 0) ExpectAllWritten();
    SetFault(true);
    for (int i = 0; i < 3; ++i) {
      const Operation append = RandomAppend();
      ExpectRefused(append);
      EXPECT_EQ(Watermark(append.id, append.layer), append.position);
    }
    ExpectRefused({.kind = Kind::kOpen, .id = "c"});
    EXPECT_EQ(store_->DescribeSession("c").status().code(), absl::StatusCode::kNotFound);
    ExpectAnswers();
    SetFault(false);
    // Without a restart.
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(Do(RandomAppend()).ok());
    for (const char* id : {"a", "b"}) ASSERT_TRUE(Do({.kind = Kind::kFlush, .id = id}).ok());
    ExpectAllWritten();
    ExpectAnswers();
  }
  Reopen();
  EXPECT_EQ(store_->Status().sessions, 2u);
}

TEST_P(SessionFullTest, NothingDurableIsLostInACrashSoonAfter) {
  for (uint32_t seed = 1; seed <= 6 && !HasFatalFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(Do(RandomAppend()).ok());
    SetFault(true);
    ExpectRefused(RandomAppend());
    SetFault(false);
    for (uint32_t i = 0; i < 1 + seed % 3; ++i) ASSERT_TRUE(Do(RandomAppend()).ok());
    if (seed % 2 == 0) {
      ASSERT_TRUE(Do({.kind = Kind::kFlush, .id = "a"}).ok());
    }
    files_->Crash();
    store_.reset();
    files_->DropUnsynced(seed);
    Open();
    ASSERT_EQ(oracle_.Check(*store_, seed), "");
  }
}

// Appends go to the log, which can be written; the folder of segments cannot.
TEST_P(SessionFullTest, SegmentsThatCouldNotBeWrittenAreWrittenLater) {
  const FaultKind kind = GetParam().kind;
  files_->FailWhere([kind](const std::string& name) -> std::optional<Fault> {
    if (!absl::StrContains(name, " segments/")) return {};
    return Fault{.kind = kind, .torn = true};
  });
  for (int i = 0; i < 3; ++i) {
    for (const uint32_t layer : WorkloadLayers()) ASSERT_TRUE(Do(Append("a", layer, 300)).ok());
  }
  const absl::Status waited = store_->WaitForBuilds(absl::Now() + kPatience);
  EXPECT_EQ(waited.code(), GetParam().code) << waited;
  EXPECT_GT(store_->Status().pending_segments, 0u);
  EXPECT_EQ(store_->Status().disk_bytes, 0u);
  ASSERT_TRUE(Do({.kind = Kind::kFlush, .id = "a"}).ok());
  ExpectAnswers();
  files_->FailWhere(nullptr);
  // Nobody appends: the builder tries again by itself.
  ExpectAllWritten();
  EXPECT_EQ(store_->Status().pending_segments, 0u);
  EXPECT_GT(store_->Status().disk_bytes, 0u);
  Reopen();
}

INSTANTIATE_TEST_SUITE_P(
    Faults, SessionFullTest,
    ::testing::Values(DiskFault{"Full", FaultKind::kNoSpace, absl::StatusCode::kResourceExhausted},
                      DiskFault{"Fails", FaultKind::kIoError, absl::StatusCode::kUnavailable}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attic
