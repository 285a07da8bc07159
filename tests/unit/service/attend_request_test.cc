#include "server/service/attend_request.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/manual_membership.h"

namespace attic {
namespace {

// Records the deadline and selections it is asked with, and answers every item with its session's
// id as boot id.
class FakeStore : public SessionStore {
 public:
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override {
    deadline_ = deadline;
    selections_.clear();
    std::vector<AttendAnswer> answers(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      answers[i].output.assign(1, static_cast<float>(items[i].min_watermark));
      answers[i].log_sum_exp = {0};
      answers[i].coverage = {1};
      answers[i].estimated_error = {0.125f};
      selections_.push_back(items[i].selection);
    }
    return answers;
  }
  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionDescription> DescribeSession(const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string&) override {
    return absl::UnimplementedError("");
  }
  std::vector<SessionDescription> ListSessions(const std::string&, size_t) override { return {}; }
  absl::StatusOr<SessionDescription> ForkSession(const std::string&, const ForkOptions&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionDescription> FlushSession(const std::string&, absl::Time) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string&, uint32_t,
                                                  std::span<const PrefixHash>) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionDescription> RenewLease(const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionDescription> PinSession(const std::string&, bool) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportSession(const std::string&,
                                                                const ExportOptions&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportSession(const ImportOptions&,
                                                              ImportAdmission) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SessionDescription> TruncateSession(const std::string&, int64_t) override {
    return absl::UnimplementedError("");
  }
  absl::Status CloseSession(const std::string&) override { return absl::UnimplementedError(""); }
  absl::StatusOr<AppendAck> Append(const AppendBatch&, absl::Time) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<SearchAnswer> Search(const SearchRequest&, absl::Time) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::shared_ptr<const Placement>> PlacementOf(const std::string& id) override {
    const auto found = placements_.find(id);
    if (found == placements_.end()) return absl::NotFoundError("session_id");
    return found->second;
  }
  std::vector<PlacedSession> ListPlaced(const std::string&, size_t,
                                        std::span<const uint32_t>) override {
    return {};
  }
  absl::StatusOr<RowsDigest> DigestRows(const std::string&, absl::Time) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::string&, int64_t,
                                                       int64_t) override {
    return absl::UnimplementedError("");
  }
  StoreStatus Status() override { return {}; }
  size_t CloseEndedSessions() override { return 0; }
  absl::Status WaitForBuilds(absl::Time) override { return absl::OkStatus(); }

  absl::Time deadline_;
  std::vector<SelectionPolicy> selections_;
  std::map<std::string, std::shared_ptr<const Placement>> placements_;
};

class AttendRequestTest : public ::testing::Test {
 protected:
  absl::Status Answer(absl::Time deadline = absl::InfiniteFuture()) {
    return AnswerAttend(store_, {.boot_id = "boot", .gate = *gate_}, metrics_, request_, arrival_,
                        deadline, response_);
  }

  // Node "a" of a cluster at epoch 4; slot 0 is here, slot 1, which changed in epoch 4, too, slot 2
  // is not. Sessions s0, s1, s2 lie in them.
  void MakeNode() {
    ClusterMap map{.cluster = "test", .epoch = 4};
    map.nodes = {{.id = "a", .address = "a:1"}, {.id = "b", .address = "b:1"}};
    map.slots = {{.replicas = {0}, .epoch = 1},
                 {.replicas = {1, 0}, .epoch = 4},
                 {.replicas = {1}, .epoch = 1}};
    for (uint32_t slot = 0; slot < 3; ++slot) {
      store_.placements_[absl::StrCat("s", slot)] =
          std::make_shared<const Placement>(Placement{.slot = slot});
    }
    store_.placements_["unplaced"] = nullptr;
    const auto membership = std::make_shared<ManualMembership>("a");
    membership->Set(map);
    gate_ = std::make_unique<SlotGate>(true, "boot", nullptr);
    gate_->Join(membership);
  }
  absl::StatusCode CodeOf(int item) {
    return static_cast<absl::StatusCode>(response_.items(item).error().code());
  }

  std::unique_ptr<SlotGate> gate_ = std::make_unique<SlotGate>();

  FakeStore store_;
  CallMetrics metrics_;
  const absl::Time arrival_ = absl::FromUnixSeconds(1'000'000);
  v1::AttendRequest request_;
  v1::AttendResponse response_;
};

TEST_F(AttendRequestTest, MalformedItemsFailAndTheOthersKeepTheirPlaces) {
  request_.set_request_id(77);
  for (int i = 0; i < 4; ++i) {
    v1::AttendItem* item = request_.add_items();
    item->set_min_watermark(i);
    if (i % 2 == 0) item->set_queries("123");
  }
  ASSERT_TRUE(Answer().ok());
  EXPECT_EQ(response_.request_id(), 77u);
  EXPECT_EQ(response_.boot_id(), "boot");
  EXPECT_EQ(response_.epoch(), 0u);
  ASSERT_EQ(response_.items_size(), 4);
  for (const int refused : {0, 2}) EXPECT_NE(response_.items(refused).error().code(), 0);
  for (const int answered : {1, 3}) {
    const float expected = static_cast<float>(answered);
    EXPECT_EQ(response_.items(answered).output(),
              std::string(reinterpret_cast<const char*>(&expected), sizeof(expected)));
  }
}

TEST_F(AttendRequestTest, SelectionsReachTheStoreAndErrorsComeBack) {
  request_.add_items();
  request_.add_items()->mutable_selection()->set_max_error(0.25f);
  // Field 90, of a later version.
  ASSERT_TRUE(
      request_.add_items()->mutable_selection()->ParseFromString(std::string("\xd0\x05\x01", 3)));
  ASSERT_TRUE(Answer().ok());
  const std::vector<SelectionPolicy> expected = {{}, {SelectionGoal::kMaxError, 0.25}};
  EXPECT_EQ(store_.selections_, expected);
  ASSERT_EQ(response_.items(1).estimated_error_size(), 1);
  EXPECT_EQ(response_.items(1).estimated_error(0), 0.125f);
  EXPECT_EQ(response_.items(2).error().code(),
            static_cast<int>(absl::StatusCode::kInvalidArgument));
}

TEST_F(AttendRequestTest, TheBudgetCountsFromTheArrival) {
  request_.add_items();
  ASSERT_TRUE(Answer().ok());
  EXPECT_EQ(store_.deadline_, absl::InfiniteFuture());
  request_.set_budget_us(500);
  ASSERT_TRUE(Answer().ok());
  EXPECT_EQ(store_.deadline_, arrival_ + absl::Microseconds(500));
  const absl::Time sooner = arrival_ + absl::Microseconds(100);
  ASSERT_TRUE(Answer(sooner).ok());
  EXPECT_EQ(store_.deadline_, sooner);
  request_.set_budget_us(UINT64_MAX);
  ASSERT_TRUE(Answer().ok());
  EXPECT_EQ(store_.deadline_, absl::InfiniteFuture());
}

TEST_F(AttendRequestTest, OneStoreKnowsNoEpoch) {
  request_.add_items();
  EXPECT_TRUE(Answer().ok());
  request_.set_epoch(5);
  EXPECT_EQ(Answer().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(AttendRequestTest, ANodeChecksTheSlotOfEveryItem) {
  MakeNode();
  for (const char* id : {"s0", "s1", "s2", "none", "unplaced"}) {
    v1::AttendItem* item = request_.add_items();
    item->set_session_id(id);
    item->set_min_watermark(id[1]);
  }
  request_.set_epoch(4);
  ASSERT_TRUE(Answer().ok());
  EXPECT_EQ(response_.epoch(), 4u);
  const float expected = '1';
  EXPECT_EQ(CodeOf(0), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(1), absl::StatusCode::kOk);
  EXPECT_EQ(response_.items(1).output(),
            std::string(reinterpret_cast<const char*>(&expected), sizeof(expected)));
  EXPECT_EQ(CodeOf(2), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(3), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(4), absl::StatusCode::kFailedPrecondition);

  response_.Clear();
  request_.set_epoch(3);
  ASSERT_TRUE(Answer().ok());
  EXPECT_EQ(response_.epoch(), 4u);
  EXPECT_EQ(CodeOf(0), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(1), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(3), absl::StatusCode::kAborted);

  response_.Clear();
  request_.set_epoch(5);
  EXPECT_EQ(Answer().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(response_.epoch(), 4u);
}

}  // namespace
}  // namespace attic
