#include "client/cli/demo/worker_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attic/v1/worker.grpc.pb.h"
#include "base/status_macros.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"
#include "wire/convert.h"

namespace attic::cli {
namespace {

constexpr size_t kTokenBytes = 4;
constexpr size_t kMessageBytesMax = 72u << 20;  // the most tokens of one Prefill, and their framing

// One little-endian uint32 a byte.
std::string TokenIds(std::string_view text) {
  std::string ids(kTokenBytes * text.size(), '\0');
  for (size_t i = 0; i < text.size(); ++i) ids[kTokenBytes * i] = text[i];
  return ids;
}

DecodedToken FromWire(const v1::DecodeToken& token) {
  return {.token_id = token.token_id(),
          .exact_token_id = token.exact_token_id(),
          .output_error = token.output_error(),
          .coverage = token.coverage(),
          .estimated_error = token.estimated_error(),
          .token_ms = token.token_ms(),
          .attend_ms = token.attend_ms(),
          .exact_attend_ms = token.exact_attend_ms(),
          .bytes_read = token.bytes_read(),
          .exact_bytes_read = token.exact_bytes_read()};
}

class GrpcWorkerClient final : public WorkerClient {
 public:
  explicit GrpcWorkerClient(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::WorkerService::NewStub(channel)) {}

  absl::StatusOr<WorkerModel> GetModel() override {
    ATTIC_ASSIGN_OR_RETURN(
        const v1::ModelDescription response,
        Call<v1::ModelDescription>(v1::GetModelRequest(), &v1::WorkerService::Stub::GetModel));
    WorkerModel model;
    ATTIC_ASSIGN_OR_RETURN(model.fingerprint, wire::FromWire(response.fingerprint()));
    model.parameters = response.parameters();
    model.vocab_size = response.vocab_size();
    model.sink_tokens = response.sink_tokens();
    model.window_tokens = response.window_tokens();
    model.backend = response.backend();
    const auto& types = response.layer_types();
    model.full_attention_layers =
        static_cast<uint32_t>(std::count(types.begin(), types.end(), "full_attention"));
    return model;
  }

  absl::Status Open(const std::string& session_id) override {
    v1::WorkerOpenRequest request;
    request.set_session_id(session_id);
    return Call<v1::WorkerSequence>(request, &v1::WorkerService::Stub::Open).status();
  }

  absl::StatusOr<PrefillSummary> Prefill(
      const std::string& session_id, std::string_view text,
      const std::function<void(int64_t, int64_t)>& on_progress) override {
    v1::PrefillRequest request;
    request.set_session_id(session_id);
    request.set_token_ids(TokenIds(text));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPrefillTimeout));
    const auto reader = stub_->Prefill(&context, request);
    v1::PrefillProgress progress;
    bool done = false;
    while (reader->Read(&progress)) {
      on_progress(progress.tokens(), progress.acknowledged());
      done = done || progress.done();
    }
    ATTIC_RETURN_IF_ERROR(wire::FromGrpc(reader->Finish()));
    if (!done) return absl::InternalError("the worker ended Prefill early");
    return PrefillSummary{.reused_tokens = progress.reused_tokens(),
                          .appended_bytes = progress.appended_bytes()};
  }

  absl::Status Fork(const std::string& session_id, const std::string& new_session_id) override {
    v1::WorkerForkRequest request;
    request.set_session_id(session_id);
    request.set_new_session_id(new_session_id);
    return Call<v1::WorkerSequence>(request, &v1::WorkerService::Stub::Fork).status();
  }

  absl::StatusOr<std::vector<DecodedToken>> Decode(const DecodeCall& call) override {
    v1::DecodeRequest request;
    request.set_session_id(call.session_id);
    request.set_prompt_token_ids(TokenIds(call.prompt));
    request.set_max_tokens(call.max_tokens);
    request.set_mode(call.mode == AttendMode::kExact ? v1::ATTEND_MODE_EXACT
                                                     : v1::ATTEND_MODE_INDEXED);
    *request.mutable_selection() = wire::ToWire(call.selection);
    request.set_compare_exact(call.compare_exact);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kWorkerCallTimeout));
    const auto reader = stub_->Decode(&context, request);
    std::vector<DecodedToken> tokens;
    v1::DecodeToken token;
    while (reader->Read(&token)) tokens.push_back(FromWire(token));
    ATTIC_RETURN_IF_ERROR(wire::FromGrpc(reader->Finish()));
    return tokens;
  }

  absl::Status Close(const std::string& session_id) override {
    v1::WorkerCloseRequest request;
    request.set_session_id(session_id);
    return Call<v1::WorkerCloseResponse>(request, &v1::WorkerService::Stub::Close).status();
  }

 private:
  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(const Request& request,
                                grpc::Status (v1::WorkerService::Stub::*method)(
                                    grpc::ClientContext*, const Request&, Response*)) {
    return CallUnary<Response>(
        request, absl::Now() + kWorkerCallTimeout,
        [&](auto* context, auto& r, auto* out) { return ((*stub_).*method)(context, r, out); });
  }

  const std::unique_ptr<v1::WorkerService::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerClient>> WorkerClient::Connect(const std::string& address,
                                                                    absl::Duration timeout) {
  const std::shared_ptr<grpc::Channel> channel = wire::MakeChannel(address, kMessageBytesMax);
  ATTIC_RETURN_IF_ERROR(WaitForConnected(*channel, address, timeout));
  return std::make_unique<GrpcWorkerClient>(channel);
}

}  // namespace attic::cli
