#include "gpu_worker/service/worker_service.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attic/v1/worker.grpc.pb.h"
#include "base/status_macros.h"
#include "gpu_worker/service/sequence_registry.h"
#include "grpcpp/grpcpp.h"
#include "wire/convert.h"

namespace attic::worker {
namespace {

constexpr int64_t kProgressTokens = 16384;  // between two progress messages
constexpr uint64_t kBudgetMicrosecondsMax = 3'600'000'000;

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.raw_code()), std::string(status.message())};
}

absl::StatusOr<std::vector<uint32_t>> ParseTokens(const std::string& bytes, const char* field,
                                                  size_t tokens_max) {
  if (bytes.size() % sizeof(uint32_t) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", bytes.size(), " bytes are not a multiple of 4"));
  }
  if (bytes.size() / sizeof(uint32_t) > tokens_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(field, ": more tokens than prefill_tokens_max (", tokens_max, ")"));
  }
  std::vector<uint32_t> tokens(bytes.size() / sizeof(uint32_t));
  if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data(), bytes.size());
  return tokens;
}

absl::StatusOr<DecodeOptions> ParseOptions(const v1::DecodeRequest& request) {
  DecodeOptions options{.max_tokens = request.max_tokens(),
                        .compare_exact = request.compare_exact()};
  switch (request.mode()) {
    case v1::ATTEND_MODE_UNSPECIFIED:
    case v1::ATTEND_MODE_INDEXED:
      options.mode = AttendMode::kIndexed;
      break;
    case v1::ATTEND_MODE_EXACT:
      options.mode = AttendMode::kExact;
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("mode: ", static_cast<int>(request.mode()), " is not known"));
  }
  ATTIC_ASSIGN_OR_RETURN(options.selection, wire::FromWire(request.selection()));
  if (request.attend_budget_us() > kBudgetMicrosecondsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("attend_budget_us: must be at most ", kBudgetMicrosecondsMax));
  }
  options.attend_budget = absl::Microseconds(static_cast<int64_t>(request.attend_budget_us()));
  return options;
}

v1::DecodeToken ToWire(const DecodedToken& token) {
  v1::DecodeToken message;
  message.set_token_id(token.token_id);
  message.set_position(token.position);
  message.set_exact_token_id(token.exact_token_id);
  message.set_output_error(token.output_error);
  message.set_coverage(token.coverage);
  message.set_estimated_error(token.estimated_error);
  message.set_token_ms(token.token_ms);
  message.set_attend_ms(token.attend_ms);
  message.set_exact_attend_ms(token.exact_attend_ms);
  message.set_bytes_read(token.bytes_read);
  message.set_exact_bytes_read(token.exact_bytes_read);
  message.set_degraded(token.degraded);
  return message;
}

void Describe(const Sequence& sequence, v1::WorkerSequence& message) {
  message.set_session_id(sequence.id());
  message.set_tokens(sequence.tokens());
}

absl::Status CheckConnected(const grpc::ServerContext& context) {
  return context.IsCancelled() ? absl::CancelledError("the call was cancelled") : absl::OkStatus();
}

class WorkerServiceImpl : public v1::WorkerService::Service {
 public:
  WorkerServiceImpl(const Decoder& decoder, const WorkerLimits& limits)
      : decoder_(decoder), limits_(limits), sequences_(limits.sequences_max) {}

  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                        v1::ModelDescription* response) override {
    const ModelConfig& config = decoder_.model().config;
    *response->mutable_fingerprint() = wire::ToWire(decoder_.fingerprint());
    for (const LayerConfig& layer : config.layers) {
      response->add_layer_types(layer.full_attention ? "full_attention" : "sliding_attention");
    }
    response->set_sliding_window(config.sliding_window);
    response->set_vocab_size(config.vocab_size);
    response->set_parameters(decoder_.model().parameters);
    response->set_backend(decoder_.backend().name());
    response->set_sink_tokens(static_cast<uint32_t>(decoder_.options().forward.sink_tokens));
    response->set_window_tokens(static_cast<uint32_t>(decoder_.options().forward.window_tokens));
    return grpc::Status::OK;
  }

  grpc::Status Open(grpc::ServerContext*, const v1::WorkerOpenRequest* request,
                    v1::WorkerSequence* response) override {
    return ToGrpc(OpenSequence(*request, *response));
  }

  grpc::Status Prefill(grpc::ServerContext* context, const v1::PrefillRequest* request,
                       grpc::ServerWriter<v1::PrefillProgress>* writer) override {
    return ToGrpc(PrefillSequence(*context, *request, *writer));
  }

  grpc::Status Fork(grpc::ServerContext*, const v1::WorkerForkRequest* request,
                    v1::WorkerSequence* response) override {
    return ToGrpc(ForkSequence(*request, *response));
  }

  grpc::Status Decode(grpc::ServerContext* context, const v1::DecodeRequest* request,
                      grpc::ServerWriter<v1::DecodeToken>* writer) override {
    return ToGrpc(DecodeSequence(*context, *request, *writer));
  }

  grpc::Status Close(grpc::ServerContext*, const v1::WorkerCloseRequest* request,
                     v1::WorkerCloseResponse*) override {
    return ToGrpc(CloseSequence(*request));
  }

 private:
  absl::Status OpenSequence(const v1::WorkerOpenRequest& request, v1::WorkerSequence& response) {
    ATTIC_ASSIGN_OR_RETURN(auto place, sequences_.Reserve(request.session_id(), "session_id"));
    ATTIC_ASSIGN_OR_RETURN(auto sequence, decoder_.Open(request.session_id()));
    Describe(*sequence, response);
    return std::move(place).Fill(std::move(sequence));
  }

  absl::Status PrefillSequence(const grpc::ServerContext& context,
                               const v1::PrefillRequest& request,
                               grpc::ServerWriter<v1::PrefillProgress>& writer) {
    const absl::Time start = absl::Now();
    ATTIC_ASSIGN_OR_RETURN(const auto tokens, ParseTokens(request.token_ids(), "token_ids",
                                                          limits_.prefill_tokens_max));
    ATTIC_ASSIGN_OR_RETURN(auto sequence, sequences_.Acquire(request.session_id()));
    int64_t reported = sequence->tokens();
    const auto report = [&](bool done) {
      v1::PrefillProgress progress;
      progress.set_tokens(sequence->tokens());
      progress.set_acknowledged(sequence->acknowledged());
      progress.set_done(done);
      progress.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
      progress.set_appended_bytes(sequence->appended_bytes());
      progress.set_reused_tokens(sequence->reused_tokens());
      reported = sequence->tokens();
      writer.Write(progress);
    };
    ATTIC_RETURN_IF_ERROR(sequence->Prefill(tokens, [&] {
      if (sequence->tokens() - reported >= kProgressTokens) report(/*done=*/false);
      return CheckConnected(context);
    }));
    report(/*done=*/true);
    return absl::OkStatus();
  }

  absl::Status ForkSequence(const v1::WorkerForkRequest& request, v1::WorkerSequence& response) {
    ATTIC_ASSIGN_OR_RETURN(auto place,
                           sequences_.Reserve(request.new_session_id(), "new_session_id"));
    ATTIC_ASSIGN_OR_RETURN(auto sequence, sequences_.Acquire(request.session_id()));
    ATTIC_ASSIGN_OR_RETURN(auto fork, sequence->Fork(request.new_session_id()));
    Describe(*fork, response);
    return std::move(place).Fill(std::move(fork));
  }

  absl::Status DecodeSequence(const grpc::ServerContext& context, const v1::DecodeRequest& request,
                              grpc::ServerWriter<v1::DecodeToken>& writer) {
    ATTIC_ASSIGN_OR_RETURN(
        const auto prompt,
        ParseTokens(request.prompt_token_ids(), "prompt_token_ids", limits_.prefill_tokens_max));
    ATTIC_ASSIGN_OR_RETURN(const DecodeOptions options, ParseOptions(request));
    ATTIC_ASSIGN_OR_RETURN(auto sequence, sequences_.Acquire(request.session_id()));
    return sequence->Decode(prompt, options, [&](const DecodedToken& token) {
      writer.Write(ToWire(token));
      return CheckConnected(context);
    });
  }

  absl::Status CloseSequence(const v1::WorkerCloseRequest& request) {
    ATTIC_ASSIGN_OR_RETURN(auto lease, sequences_.Acquire(request.session_id()));
    const std::unique_ptr<Sequence> sequence = std::move(lease).Remove();
    return sequence->Close();
  }

  const Decoder& decoder_;
  const WorkerLimits limits_;
  SequenceRegistry sequences_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeWorkerService(const Decoder& decoder,
                                                 const WorkerLimits& limits) {
  return std::make_unique<WorkerServiceImpl>(decoder, limits);
}

}  // namespace attic::worker
