#include "server/session/eviction.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

const absl::Time kStart = absl::UnixEpoch();
absl::Time At(int seconds) { return kStart + absl::Seconds(seconds); }

class EvictionTest : public ::testing::Test {
 protected:
  std::shared_ptr<Session> Add(const std::string& id, uint32_t ttl, int last_use, size_t tokens,
                               const std::string& tenant = "") {
    const OpenSessionRequest request{.session_id = id,
                                     .fingerprint = SmallFingerprint(),
                                     .stored_layers = {0},
                                     .tenant = tenant,
                                     .ttl_seconds = ttl};
    const auto session = *Session::Create(request, {.budget = std::make_shared<MemoryBudget>(0)});
    session->lease().Renew(At(last_use));
    if (tokens > 0) {
      std::mt19937_64 random(1);
      const Tokens rows = Tokens::Random(request.fingerprint, tokens, random);
      EXPECT_TRUE(session->layers()[0]->Append(rows.Batch(id, 0, 0), absl::InfiniteFuture()).ok());
    }
    sessions_.push_back(session);
    return session;
  }
  std::string Victim(const std::string* tenant, int now) {
    const auto victim = ChooseVictim(sessions_, tenant, At(now));
    return victim == nullptr ? "none" : victim->id();
  }

  std::vector<std::shared_ptr<Session>> sessions_;
};

TEST_F(EvictionTest, OnlyWhatHasEndedAndLeastWorthForItsSizeFirst) {
  Add("kept", 0, 0, 1000);
  Add("running", 1000, 0, 1000);
  Add("pinned", 10, 0, 1000)->lease().SetPinned(true);
  Add("small", 10, 0, 10);
  Add("large", 10, 10, 40000);
  Add("recent", 10, 50, 40000);
  EXPECT_EQ(Victim(nullptr, 100), "large");
  EXPECT_EQ(Victim(nullptr, 100), "recent");
  EXPECT_EQ(Victim(nullptr, 100), "small");
  EXPECT_EQ(Victim(nullptr, 100), "none");
  EXPECT_EQ(Victim(nullptr, 1001), "running");
  EXPECT_EQ(Victim(nullptr, 1 << 30), "none");
}

TEST_F(EvictionTest, OfOneTenantOnly) {
  Add("a", 10, 0, 1000, "a");
  Add("b", 10, 0, 10, "b");
  const std::string tenant = "b";
  EXPECT_EQ(Victim(&tenant, 100), "b");
  EXPECT_EQ(Victim(&tenant, 100), "none");
}

TEST_F(EvictionTest, ShortagesAreTold) {
  EXPECT_EQ(ShortageOf(absl::OkStatus()), Shortage::kNone);
  EXPECT_EQ(ShortageOf(absl::NotFoundError("memory_bytes_max")), Shortage::kNone);
  EXPECT_EQ(ShortageOf(absl::ResourceExhaustedError("count: too many")), Shortage::kNone);
  EXPECT_EQ(ShortageOf(absl::ResourceExhaustedError("memory_bytes_max: 1")), Shortage::kOfStore);
  EXPECT_EQ(ShortageOf(absl::ResourceExhaustedError("sessions_max: 1")), Shortage::kOfStore);
  EXPECT_EQ(ShortageOf(absl::ResourceExhaustedError("tenant_bytes_max: 1")), Shortage::kOfTenant);
}

}  // namespace
}  // namespace attic
