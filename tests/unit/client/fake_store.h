// A store whose answers a test decides, to show what the client does when they are late, missing or
// wrong.
#ifndef ATTIC_TESTS_UNIT_CLIENT_FAKE_STORE_H_
#define ATTIC_TESTS_UNIT_CLIENT_FAKE_STORE_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "attic/v1/admin.grpc.pb.h"
#include "attic/v1/attention.grpc.pb.h"
#include "wire/channel.h"

namespace attic {

class FakeStore final : public v1::AttentionService::Service, public v1::AdminService::Service {
 public:
  using AttendServer = grpc::ServerReaderWriter<v1::AttendResponse, v1::AttendRequest>;
  using AppendServer = grpc::ServerReaderWriter<v1::AppendResponse, v1::AppendRequest>;

  // The body of each stream; when it returns the stream ends.
  std::function<void(grpc::ServerContext&, AttendServer&)> attend;
  std::function<void(grpc::ServerContext&, AppendServer&)> append;

  FakeStore() {
    grpc::ServerBuilder builder;
    int port = 0;
    wire::ServeChannels(builder);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(static_cast<v1::AttentionService::Service*>(this));
    builder.RegisterService(static_cast<v1::AdminService::Service*>(this));
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeStore() override { Stop(); }

  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }
  const std::string& address() const { return address_; }

  // An answer of one item, recognised by its epoch.
  static v1::AttendResponse Answer(uint64_t request_id, uint64_t epoch) {
    v1::AttendResponse response;
    response.set_request_id(request_id);
    response.set_epoch(epoch);
    v1::AttendItemResponse& item = *response.add_items();
    item.set_output(std::string(4 * sizeof(float), '\0'));
    item.add_log_sum_exp(0);
    item.add_coverage(1);
    item.add_estimated_error(0);
    return response;
  }

  // Blocks a stream's body until the call or the server ends.
  static void WaitForEnd(grpc::ServerContext& context) {
    while (!context.IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

 private:
  grpc::Status AttendStream(grpc::ServerContext* context, AttendServer* stream) override {
    attend(*context, *stream);
    return grpc::Status::OK;
  }
  grpc::Status Append(grpc::ServerContext* context, AppendServer* stream) override {
    append(*context, *stream);
    return grpc::Status::OK;
  }
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::StoreStatus*) override {
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLIENT_FAKE_STORE_H_
