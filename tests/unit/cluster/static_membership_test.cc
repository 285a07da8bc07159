#include "server/cluster/static_membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/support/temporary_folder.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr char kNodes[] = R"("nodes": [
  {"id": "b", "address": "10.0.0.2:7400", "zone": "z2"},
  {"id": "a", "address": "10.0.0.1:7400", "zone": "z1", "capacity": 3},
  {"id": "c", "address": "10.0.0.3:7400", "zone": "z3"}])";

class StaticMembershipTest : public testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<Membership>> Read(const std::string& text,
                                                   const std::string& node_id = "a") {
    const std::string file = folder_.file("cluster.json");
    std::ofstream(file) << text;
    return ReadStaticMembership(file, node_id);
  }

  const TemporaryFolder folder_;
};

TEST_F(StaticMembershipTest, AllNodesMakeTheSameMap) {
  const std::string file =
      std::string(R"({"cluster": "test", "epoch": 7, "slots": 64, "replicas": 2, )") + kNodes + "}";
  const auto a = Read(file, "a"), b = Read(file, "b");
  ASSERT_TRUE(a.ok()) << a.status();
  ASSERT_TRUE(b.ok()) << b.status();
  const ClusterMapPtr map = (*a)->map();
  EXPECT_EQ(*map, *(*b)->map());
  EXPECT_EQ(map->epoch, 7u);
  EXPECT_EQ(map->slots.size(), 64u);
  ASSERT_EQ(map->nodes.size(), 3u);
  EXPECT_EQ(map->nodes[1].address, "10.0.0.2:7400");
  EXPECT_TRUE(ValidateClusterMap(*map).ok());
  for (const SlotAssignment& slot : map->slots) {
    EXPECT_EQ(slot.replicas.size(), 3u);
    EXPECT_EQ(slot.epoch, 7u);
  }
  EXPECT_EQ((*a)->WaitForNewer(7, absl::InfinitePast()), nullptr);
  EXPECT_EQ((*a)->Change("b", NodeChange::kDrain, absl::InfiniteFuture()).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(StaticMembershipTest, MistakesAreNamed) {
  const auto message = [&](const std::string& text, const std::string& node_id = "a") {
    return std::string(Read(text, node_id).status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("parse error"));
  EXPECT_THAT(message("{}"), HasSubstr("cluster"));
  EXPECT_THAT(message(R"({"cluster": "t"})"), HasSubstr("nodes"));
  EXPECT_THAT(message(R"({"cluster": 5, "nodes": []})"), HasSubstr("string"));
  EXPECT_THAT(message(R"({"cluster": "t", "nodes": [{"id": "a"}]})"), HasSubstr("address"));
  EXPECT_THAT(message(R"({"cluster": "t", "nodes": [{"id": "a", "address": "x:1"},
                          {"id": "a", "address": "y:1"}]})"),
              HasSubstr("a is there twice"));
  EXPECT_THAT(message(R"({"cluster": "t", "nodes": []})"), HasSubstr("slots"));
  EXPECT_THAT(message(std::string(R"({"cluster": "t", )") + kNodes + "}", "nobody"),
              HasSubstr("nobody"));
  EXPECT_EQ(ReadStaticMembership("/nowhere/cluster.json", "a").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace attic
