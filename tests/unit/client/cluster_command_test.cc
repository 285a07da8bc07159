// attic cluster against a node in this process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/cli/command_line.h"
#include "client/cpp/client.h"
#include "server/service/store_server.h"
#include "tests/support/manual_membership.h"

namespace attic::cli {
namespace {

using ::testing::HasSubstr;

class ClusterCommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = Start(membership_);
    membership_->SetControlling(true);
    SetMap(NodeState::kLive);
  }
  static std::unique_ptr<StoreServer> Start(std::shared_ptr<ManualMembership> membership) {
    StoreServerOptions options{.listen_address = "127.0.0.1:0"};
    options.store.threads = 1;
    options.store.build_threads = 1;
    options.cluster.join =
        [membership](const NodeIdentity&) -> absl::StatusOr<std::shared_ptr<Membership>> {
      return membership;
    };
    auto server = StoreServer::Start(options);
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  // Node a, which is here, and b, which is down.
  void SetMap(NodeState state_of_a) {
    ClusterMap map{.cluster = "books", .epoch = 9, .replicas_default = 2};
    map.nodes = {{.id = "a", .address = server_->address(), .zone = "east", .state = state_of_a},
                 {.id = "b", .address = "127.0.0.1:1", .state = NodeState::kDown}};
    map.slots.assign(8, {.replicas = {0, 1}, .epoch = 2});
    membership_->Set(map);
  }

  int Run(std::vector<std::string> arguments, const std::string& more_servers = "") {
    arguments.insert(arguments.begin(), "attic");
    arguments.push_back("--server");
    arguments.push_back(more_servers + server_->address());
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int exit_code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    return exit_code;
  }

  const std::shared_ptr<ManualMembership> membership_ = std::make_shared<ManualMembership>("a");
  std::unique_ptr<StoreServer> server_;
  std::string out_, err_;
};

TEST_F(ClusterCommandTest, Status) {
  EXPECT_EQ(Run({"cluster", "status"}), 0) << err_;
  for (const char* part : {"cluster books: epoch 9, 8 slots, 2 replicas, controller a", "east",
                           "8 slots have fewer live replicas", "does not answer"}) {
    EXPECT_THAT(out_, HasSubstr(part));
  }
  EXPECT_EQ(Run({"cluster", "status", "--json"}), 0) << err_;
  const auto document = nlohmann::json::parse(out_);
  EXPECT_EQ(document["epoch"], 9);
  EXPECT_EQ(document["slots_lost"], 0);
  EXPECT_EQ(document["slots_short"], 8);
  EXPECT_EQ(document["nodes"][0]["slots_first"], 8);
  EXPECT_EQ(document["nodes"][0]["repair"]["controller"], true);
  EXPECT_EQ(document["nodes"][1]["state"], "down");
  EXPECT_FALSE(document["nodes"][1].contains("repair"));
}

TEST_F(ClusterCommandTest, LostSlotsAreAnError) {
  SetMap(NodeState::kRepairing);
  EXPECT_EQ(Run({"cluster", "status"}), 1);
  EXPECT_THAT(out_, HasSubstr("8 slots have no live replica"));
}

TEST_F(ClusterCommandTest, WhatIsAskedReachesTheNode) {
  EXPECT_EQ(Run({"cluster", "drain", "b"}), 0) << err_;
  EXPECT_EQ(Run({"cluster", "add", "b"}), 0) << err_;
  EXPECT_EQ(Run({"cluster", "remove", "b"}), 0) << err_;
  EXPECT_EQ(Run({"cluster", "rebalance", "--json"}), 0) << err_;
  const std::vector<std::string> expected = {"change b drain", "change b add", "change b remove",
                                             "rebalance"};
  EXPECT_EQ(membership_->asked(), expected);
  membership_->SetAnswer(absl::NotFoundError("no node z"));
  EXPECT_EQ(Run({"cluster", "drain", "z"}), 1);
  EXPECT_THAT(err_, HasSubstr("no node z"));
}

TEST_F(ClusterCommandTest, SessionsAsFiles) {
  const auto client = ConnectClient({.address = server_->address()});
  ASSERT_TRUE(client.ok()) << client.status();
  const Fingerprint model{.model_id = "m",
                          .layers = 1,
                          .q_heads = 2,
                          .kv_heads = 2,
                          .head_dim = 16,
                          .value_dim = 16,
                          .element_type = ElementType::kFloat32,
                          .logit_scale = 1};
  ASSERT_TRUE((*client)
                  ->OpenSession({.session_id = "book", .fingerprint = model, .stored_layers = {0}})
                  .ok());
  const std::vector<float> rows(300 * 2 * 16, 0.5f);
  const auto stream = *(*client)->OpenAppendStream();
  ASSERT_EQ(stream->Append({.session_id = "book",
                            .count = 300,
                            .keys = std::as_bytes(std::span(rows)),
                            .values = std::as_bytes(std::span(rows))}),
            absl::OkStatus());
  ASSERT_TRUE(stream->Flush(absl::Now() + absl::Seconds(30)).ok());
  const std::string file = ::testing::TempDir() + "attic_cluster_command_test.snapshot";
  std::filesystem::remove(file);
  EXPECT_EQ(Run({"export", "book", file}), 0) << err_;
  EXPECT_EQ(Run({"import", file}), 1);
  EXPECT_THAT(err_, HasSubstr("book is taken"));
  EXPECT_NE(Run({"import", file, "--session-id", "copy", "--replicas", "4"}), 0);
  EXPECT_EQ(Run({"import", file, "--session-id", "copy", "--replicas", "1"}), 0) << err_;
  EXPECT_EQ(out_, "imported copy: 300 tokens, memory\n");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  EXPECT_EQ(Run({"import", file, "--session-id", "other"}), 1);
  EXPECT_THAT(err_, HasSubstr("snapshot of a cluster"));
  EXPECT_EQ((*client)->ListSessions()->size(), 2);
  std::filesystem::remove(file);
}

TEST_F(ClusterCommandTest, ANodeThatIsBehindDoesNotSpeakForTheCluster) {
  const auto membership = std::make_shared<ManualMembership>("b");
  const auto server = Start(membership);
  ClusterMap map{.cluster = "books", .epoch = 11, .replicas_default = 2};
  map.nodes = {{.id = "a", .address = server_->address(), .state = NodeState::kRepairing},
               {.id = "b", .address = server->address(), .state = NodeState::kLive}};
  map.slots.assign(8, {.replicas = {0, 1}, .epoch = 2});
  // It is not asked by name, but of those that are one knows a map with it.
  ClusterMap old = map;
  old.epoch = 10;
  membership_->Set(old);
  membership->Set(map);
  EXPECT_EQ(Run({"cluster", "status"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("epoch 11"));
  EXPECT_THAT(out_, HasSubstr("repairing, at epoch 10"));
  EXPECT_EQ(Run({"cluster", "status", "--json"}), 0) << err_;
  const auto document = nlohmann::json::parse(out_);
  EXPECT_EQ(document["epoch"], 11);
  EXPECT_EQ(document["nodes"][0]["epoch"], 10);
  EXPECT_EQ(document["nodes"][1]["epoch"], 11);
}

TEST_F(ClusterCommandTest, AServerThatIsNotThereIsPassedOver) {
  EXPECT_EQ(Run({"cluster", "status"}, "127.0.0.1:1,"), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("epoch 9"));
}

}  // namespace
}  // namespace attic::cli
