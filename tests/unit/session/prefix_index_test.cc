// Random registrations, compared with a list of all chains.
#include "server/session/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

std::shared_ptr<MemoryBudget> Budget() { return std::make_shared<MemoryBudget>(0); }

OpenSessionRequest Request(const std::string& id, const std::string& tenant) {
  return {.session_id = id,
          .fingerprint = SmallFingerprint(),
          .stored_layers = {3, 0},
          .tenant = tenant};
}

std::shared_ptr<Session> MakeSession(const OpenSessionRequest& request) {
  return *Session::Create(request, {.budget = Budget()});
}

// A chain over blocks that stand for themselves: the i'th hash depends on blocks [0, i].
std::vector<PrefixHash> Chain(const std::vector<uint32_t>& blocks) {
  std::vector<uint32_t> tokens;
  for (const uint32_t block : blocks) tokens.insert(tokens.end(), kPrefixBlockTokens, block);
  return PrefixHashes(tokens);
}

struct Registered {
  std::shared_ptr<Session> session;
  std::string tenant;
  std::vector<uint32_t> blocks;
  uint64_t truncations = 0;
};

size_t CommonBlocks(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  size_t same = 0;
  while (same < std::min(a.size(), b.size()) && a[same] == b[same]) ++same;
  return same;
}

class PrefixIndexModel {
 public:
  explicit PrefixIndexModel(uint64_t seed) : random_(seed) {}

  void Step() {
    const uint64_t kind = random_() % 10;
    if (all_.empty() || (kind < 3 && all_.size() < 60)) return Add();
    Registered& chosen = all_[random_() % all_.size()];
    if (kind < 5) return Extend(chosen);
    if (kind < 6) return Truncate(chosen);
    if (kind < 7) return Remove(chosen);
    Find();
  }

  void CheckAll() {
    for (const Registered& one : all_) {
      const RegisteredPrefix prefix = index_.Registered(*one.session);
      ASSERT_EQ(prefix.hashes, Chain(one.blocks));
      ASSERT_EQ(prefix.truncations, one.truncations);
    }
  }

 private:
  // Few kinds of blocks, so that chains share beginnings of all lengths.
  std::vector<uint32_t> Blocks() {
    std::vector<uint32_t> blocks(random_() % 12);
    for (uint32_t& block : blocks) block = static_cast<uint32_t>(random_() % 3 == 0);
    return blocks;
  }
  std::string Tenant() { return absl::StrCat("t", random_() % 2); }

  void Add() {
    const std::string tenant = Tenant();
    Registered added{MakeSession(Request(absl::StrCat("s", next_++), tenant)), tenant, Blocks()};
    index_.Add(added.session, Chain(added.blocks));
    all_.push_back(std::move(added));
  }

  void Extend(Registered& chosen) {
    const std::vector<uint32_t> added = Blocks();
    std::vector<uint32_t> longer = chosen.blocks;
    longer.insert(longer.end(), added.begin(), added.end());
    const std::vector<PrefixHash> hashes = Chain(longer);
    // With some blocks that are registered already.
    const size_t first = chosen.blocks.empty() ? 0 : random_() % chosen.blocks.size();
    const auto sent = std::span(hashes).subspan(first);
    ASSERT_TRUE(index_.Extend(*chosen.session, first, sent).ok());
    EXPECT_EQ(index_.Extend(*chosen.session, longer.size() + 1, sent).code(),
              absl::StatusCode::kOutOfRange);
    chosen.blocks = std::move(longer);
    if (chosen.blocks.empty()) return;
    const std::vector<PrefixHash> other = Chain({77});
    EXPECT_EQ(index_.Extend(*chosen.session, 0, other).code(), absl::StatusCode::kAlreadyExists);
  }

  void Truncate(Registered& chosen) {
    const size_t position = random_() % (14 * kPrefixBlockTokens);
    index_.Truncate(*chosen.session, static_cast<int64_t>(position));
    chosen.blocks.resize(std::min(chosen.blocks.size(), position / kPrefixBlockTokens));
    EXPECT_TRUE(index_.StillHolds(*chosen.session, chosen.truncations + 1));
    EXPECT_FALSE(index_.StillHolds(*chosen.session, chosen.truncations++));
  }

  void Remove(Registered& chosen) {
    index_.Remove(*chosen.session);
    EXPECT_FALSE(index_.StillHolds(*chosen.session, chosen.truncations));
    EXPECT_TRUE(index_.Registered(*chosen.session).hashes.empty());
    chosen = all_.back();
    all_.pop_back();
  }

  void Find() {
    const std::vector<uint32_t> blocks = Blocks();
    OpenSessionRequest request = Request("new", Tenant());
    request.prefix_hashes = Chain(blocks);
    std::map<Session*, size_t> expected;
    for (const Registered& one : all_) {
      const size_t common = CommonBlocks(one.blocks, blocks);
      if (one.tenant == request.tenant && common > 0) expected[one.session.get()] = common;
    }
    const std::vector<PrefixMatch> matches = index_.Find(request);
    ASSERT_EQ(matches.size(), expected.size());
    for (size_t i = 0; i < matches.size(); ++i) {
      const auto found = expected.find(matches[i].session.get());
      ASSERT_NE(found, expected.end()) << "found twice, or not to be found";
      EXPECT_EQ(matches[i].blocks, found->second);
      expected.erase(found);
      EXPECT_LE(matches[i].blocks, matches[i == 0 ? 0 : i - 1].blocks);
      EXPECT_TRUE(index_.StillHolds(*matches[i].session, matches[i].truncations));
    }
  }

  std::mt19937_64 random_;
  PrefixIndex index_;
  std::vector<Registered> all_;
  int next_ = 0;
};

TEST(PrefixIndexTest, RandomChainsAreFoundAsInAList) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  PrefixIndexModel model(seed);
  for (int step = 0; step < 3000 && !::testing::Test::HasFatalFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    model.Step();
    if (step % 500 == 499) model.CheckAll();
  }
}

TEST(PrefixIndexTest, OtherModelsTenantsAndLayersAreNotFound) {
  PrefixIndex index;
  OpenSessionRequest request = Request("s", "tenant");
  request.prefix_hashes = Chain({1, 2});
  const auto session = MakeSession(request);
  index.Add(session, request.prefix_hashes);
  EXPECT_EQ(index.Find(request).size(), 1u);
  std::swap(request.stored_layers[0], request.stored_layers[1]);
  EXPECT_EQ(index.Find(request).size(), 1u) << "the order of layers means nothing";

  const auto expect_none = [&](auto change) {
    OpenSessionRequest other = request;
    change(other);
    EXPECT_TRUE(index.Find(other).empty());
  };
  expect_none([](auto& r) { r.tenant = "other"; });
  expect_none([](auto& r) { r.stored_layers = {0}; });
  expect_none([](auto& r) { r.fingerprint.model_id = "other"; });
  expect_none([](auto& r) { r.fingerprint.revision = "other"; });
  expect_none([](auto& r) { r.fingerprint.position_encoding = "other"; });
  expect_none([](auto& r) { r.fingerprint.layers = 5; });
  expect_none([](auto& r) { r.fingerprint.q_heads = 8; });
  expect_none([](auto& r) { r.fingerprint.kv_heads = 4; });
  expect_none([](auto& r) { r.fingerprint.head_dim = 8; });
  expect_none([](auto& r) { r.fingerprint.value_dim = 16; });
  expect_none([](auto& r) { r.fingerprint.element_type = ElementType::kFloat16; });
  expect_none([](auto& r) { r.fingerprint.logit_scale = 0.5f; });
  // Texts that are the same end to end.
  expect_none([](auto& r) {
    r.tenant = "tenantte";
    r.fingerprint.model_id = "st";
  });
}

TEST(PrefixIndexTest, SessionsNobodyHoldsAreNotFound) {
  PrefixIndex index;
  OpenSessionRequest request = Request("s", "");
  request.prefix_hashes = Chain({1});
  auto session = MakeSession(request);
  index.Add(session, request.prefix_hashes);
  session.reset();
  EXPECT_TRUE(index.Find(request).empty());
}

}  // namespace
}  // namespace attic
