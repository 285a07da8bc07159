// Health checks, at the store's address and at one of their own.
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/integration/store_service_fixture.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

class StoreHealthTest : public StoreServiceTest {
 protected:
  void SetUp() override {
    options_.health_listen_address = "0.0.0.0:0";  // allowed, unlike that of the store
    StartServer();
    health_channel_ = Connect(server_->health_address());
  }

  static std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
    const std::string port = address.substr(address.rfind(':'));
    return grpc::CreateChannel("127.0.0.1" + port, grpc::InsecureChannelCredentials());
  }

  // What both addresses say; they must agree.
  std::string Check(const std::string& service) {
    const std::string here = HealthOf(*channel_, service);
    EXPECT_EQ(HealthOf(*health_channel_, service), here);
    return here;
  }

  std::shared_ptr<grpc::Channel> health_channel_;
};

TEST_F(StoreHealthTest, ReadinessIsToldApartFromLife) {
  EXPECT_EQ(Check(""), "SERVING");
  EXPECT_EQ(Check("ready"), "SERVING");
  EXPECT_EQ(Check("nothing"), std::to_string(grpc::StatusCode::NOT_FOUND));
  server_->SetReady(false);
  EXPECT_EQ(Check(""), "SERVING");
  EXPECT_EQ(Check("ready"), "NOT_SERVING");
  EXPECT_TRUE(Open(OpenRequest("s")).ok()) << "who calls nevertheless is served";
  server_->SetReady(true);
  EXPECT_EQ(Check("ready"), "SERVING");
}

TEST_F(StoreHealthTest, NothingServesFromDrainOn) {
  server_->Drain(absl::Now() + absl::Seconds(10));
  // The store's own address is gone.
  for (const char* service : {"", "ready"}) {
    EXPECT_EQ(HealthOf(*health_channel_, service), "NOT_SERVING");
    server_->SetReady(true);
    EXPECT_EQ(HealthOf(*health_channel_, service), "NOT_SERVING");
  }
}

TEST_F(StoreHealthTest, TheHealthAddressAnswersNothingElse) {
  std::string response;
  for (const char* method : {"/attic.v1.AdminService/GetStatus", "/attic.v1.SessionService/List",
                             "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
    EXPECT_EQ(CallByName(*health_channel_, method, "", &response).error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
    EXPECT_EQ(response, "");
  }
  // Reflection of the store's own address is left as it is.
  ASSERT_TRUE(CallByName(*channel_,
                         "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                         std::string("\x3a\x01*"), &response)
                  .ok());
  EXPECT_THAT(response, HasSubstr("attic.v1.AdminService"));
}

TEST_F(StoreHealthTest, AStoreMayBecomeReadyLater) {
  options_.ready = false;
  StartServer();
  health_channel_ = Connect(server_->health_address());
  EXPECT_EQ(Check(""), "SERVING");
  EXPECT_EQ(Check("ready"), "NOT_SERVING");
  server_->SetReady(true);
  EXPECT_EQ(Check("ready"), "SERVING");
}

TEST_F(StoreHealthTest, AddressesAreChecked) {
  options_.health_listen_address = server_->health_address();
  EXPECT_EQ(StoreServer::Start(options_).status().code(), absl::StatusCode::kUnavailable);
  options_.health_listen_address = "nonsense";
  const absl::Status refused = StoreServer::Start(options_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("health-listen"));
  options_.health_listen_address = "";
  const auto none = StoreServer::Start(options_);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ((*none)->health_address(), "");
}

}  // namespace
}  // namespace attic
