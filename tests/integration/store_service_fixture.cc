#include "tests/integration/store_service_fixture.h"

#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <chrono>

#include "absl/time/clock.h"

namespace attic {

grpc::Status CallByName(grpc::Channel& channel, const std::string& method,
                        const std::string& request, std::string* response) {
  grpc::GenericStub stub(std::shared_ptr<grpc::Channel>(&channel, [](grpc::Channel*) {}));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  grpc::Slice slice(request);
  grpc::ByteBuffer out(&slice, 1);
  grpc::ByteBuffer in;
  grpc::Status status;
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(&context);
  queue.Next(&tag, &ok);
  call->WriteLast(out, grpc::WriteOptions(), &context);
  queue.Next(&tag, &ok);
  call->Read(&in, &context);
  queue.Next(&tag, &ok);
  const bool read = ok;
  call->Finish(&status, &context);
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  if (read && in.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) {
      response->append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return status;
}

std::string HealthOf(grpc::Channel& channel, const std::string& service) {
  std::string request;  // HealthCheckRequest{service}
  if (!service.empty()) request = "\x0a" + std::string(1, char(service.size())) + service;
  std::string response;
  const grpc::Status status =
      CallByName(channel, "/grpc.health.v1.Health/Check", request, &response);
  if (!status.ok()) return std::to_string(status.error_code());
  if (response == std::string("\x08\x01")) return "SERVING";
  return response == std::string("\x08\x02") ? "NOT_SERVING" : "unexpected " + response;
}

StoreServiceTest::StoreServiceTest() {
  options_.listen_address = "127.0.0.1:0";
  options_.store.threads = 2;
  options_.store.build_threads = 1;
  options_.store.index.segment_tokens = 256;
  options_.store.index.exact_scan_tokens_max = 1024;
}

void StoreServiceTest::StartServer() {
  auto server = StoreServer::Start(options_);
  ASSERT_TRUE(server.ok()) << server.status().message();
  server_ = *std::move(server);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  channel_ =
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments);
  sessions_ = v1::SessionService::NewStub(channel_);
  attention_ = v1::AttentionService::NewStub(channel_);
  admin_ = v1::AdminService::NewStub(channel_);
}

std::unique_ptr<grpc::ClientContext> StoreServiceTest::Context() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  return context;
}

v1::OpenRequest StoreServiceTest::OpenRequest(const std::string& session_id) const {
  v1::OpenRequest request;
  request.set_session_id(session_id);
  v1::Fingerprint* f = request.mutable_fingerprint();
  f->set_model_id("test");
  f->set_revision("1");
  f->set_layers(4);
  f->set_q_heads(kQHeads);
  f->set_kv_heads(kKvHeads);
  f->set_head_dim(kHeadDim);
  f->set_value_dim(kValueDim);
  f->set_element_type(v1::ELEMENT_TYPE_FLOAT32);
  f->set_logit_scale(0.25f);
  request.add_stored_layers(0);
  request.add_stored_layers(1);
  return request;
}

grpc::Status StoreServiceTest::Open(const v1::OpenRequest& request,
                                    v1::SessionDescription* response) {
  v1::SessionDescription ignored;
  return sessions_->Open(Context().get(), request, response == nullptr ? &ignored : response);
}

void StoreServiceTest::OpenSession(const std::string& session_id) {
  const grpc::Status status = Open(OpenRequest(session_id));
  ASSERT_TRUE(status.ok()) << status.error_message();
}

int64_t StoreServiceTest::Watermark(const std::string& session_id, int layer_index) {
  v1::DescribeRequest request;
  request.set_session_id(session_id);
  v1::SessionDescription response;
  const grpc::Status status = sessions_->Describe(Context().get(), request, &response);
  return status.ok() ? response.layers(layer_index).watermark() : -1;
}

std::string StoreServiceTest::RandomFloatBytes(size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = normal(random_);
  return std::string(reinterpret_cast<const char*>(numbers.data()), count * sizeof(float));
}

v1::AppendRequest StoreServiceTest::AppendRequest(const std::string& session_id, int64_t begin,
                                                  uint32_t count) {
  v1::AppendRequest request;
  request.set_session_id(session_id);
  request.set_begin_position(begin);
  request.set_count(count);
  request.set_keys(RandomFloatBytes(size_t{count} * kKvHeads * kHeadDim));
  request.set_values(RandomFloatBytes(size_t{count} * kKvHeads * kValueDim));
  return request;
}

std::vector<v1::AppendResponse> StoreServiceTest::Append(
    const std::vector<v1::AppendRequest>& requests) {
  const auto context = Context();
  const auto stream = attention_->Append(context.get());
  std::vector<v1::AppendResponse> responses;
  for (const v1::AppendRequest& request : requests) {
    v1::AppendResponse response;
    if (!stream->Write(request) || !stream->Read(&response)) break;
    responses.push_back(response);
  }
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(responses.size(), requests.size());
  return responses;
}

void StoreServiceTest::Fill(const std::string& session_id, int64_t count) {
  std::vector<v1::AppendRequest> requests;
  for (int64_t begin = 0; begin < count; begin += 1000) {
    const auto size = static_cast<uint32_t>(std::min<int64_t>(1000, count - begin));
    requests.push_back(AppendRequest(session_id, begin, size));
  }
  for (const v1::AppendResponse& response : Append(requests)) {
    ASSERT_EQ(response.error().code(), 0) << response.error().message();
  }
}

v1::AttendItem StoreServiceTest::Item(const std::string& session_id) {
  v1::AttendItem item;
  item.set_session_id(session_id);
  item.set_queries(RandomFloatBytes(size_t{kQHeads} * kHeadDim));
  return item;
}

v1::AttendRequest StoreServiceTest::AttendRequest(const std::string& session_id) {
  v1::AttendRequest request;
  *request.add_items() = Item(session_id);
  return request;
}

}  // namespace attic
