// A store server in this process, on a free loopback port, and raw stubs to it.
#ifndef ATTIC_TESTS_INTEGRATION_STORE_SERVICE_FIXTURE_H_
#define ATTIC_TESTS_INTEGRATION_STORE_SERVICE_FIXTURE_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "attic/v1/admin.grpc.pb.h"
#include "attic/v1/attention.grpc.pb.h"
#include "attic/v1/session.grpc.pb.h"
#include "server/service/store_server.h"

namespace attic {

// A unary call by name, for services whose generated code is not packaged: sends and returns
// serialised messages.
grpc::Status CallByName(grpc::Channel& channel, const std::string& method,
                        const std::string& request, std::string* response);

// What a health check of `service` says: "SERVING", "NOT_SERVING" or the code of the error.
std::string HealthOf(grpc::Channel& channel, const std::string& service);

class StoreServiceTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kQHeads = 4;
  static constexpr uint32_t kKvHeads = 2;
  static constexpr uint32_t kHeadDim = 16;
  static constexpr uint32_t kValueDim = 8;

  StoreServiceTest();

  // Starts the server with options_ and connects the stubs.
  void StartServer();
  void SetUp() override { StartServer(); }

  // A context whose call ends within 20 seconds.
  static std::unique_ptr<grpc::ClientContext> Context();

  v1::OpenRequest OpenRequest(const std::string& session_id) const;
  grpc::Status Open(const v1::OpenRequest& request, v1::SessionDescription* response = nullptr);
  // Opens `session_id` with layers 0 and 1.
  void OpenSession(const std::string& session_id);
  int64_t Watermark(const std::string& session_id, int layer_index = 0);

  // `count` random tokens.
  v1::AppendRequest AppendRequest(const std::string& session_id, int64_t begin, uint32_t count);
  // Sends the requests on one stream and returns the responses.
  std::vector<v1::AppendResponse> Append(const std::vector<v1::AppendRequest>& requests);
  // Appends `count` random tokens to layer 0, in batches that fit.
  void Fill(const std::string& session_id, int64_t count);

  v1::AttendItem Item(const std::string& session_id);
  v1::AttendRequest AttendRequest(const std::string& session_id);

  std::string RandomFloatBytes(size_t count);

  StoreServerOptions options_;
  std::mt19937_64 random_{1};
  std::unique_ptr<StoreServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::AttentionService::Stub> attention_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_INTEGRATION_STORE_SERVICE_FIXTURE_H_
