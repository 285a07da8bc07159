// The handlers of attic.v1.WorkerService: check, translate, call the decoder.
#ifndef ATTIC_GPU_WORKER_SERVICE_WORKER_SERVICE_H_
#define ATTIC_GPU_WORKER_SERVICE_WORKER_SERVICE_H_

#include <cstddef>
#include <memory>

#include "gpu_worker/model/decoder.h"
#include "grpcpp/impl/codegen/service_type.h"

namespace attic::worker {

struct WorkerLimits {
  size_t sequences_max = 64;
  size_t prefill_tokens_max = 16'777'216;  // of one Prefill call, and of a Decode prompt
};

// The largest request: a Prefill of prefill_tokens_max tokens, and its frame.
inline constexpr int kWorkerMessageBytesMax = (64 << 20) + (1 << 16);

// The service over `decoder`, which must outlive it. Thread-safe; a call occupies its thread until
// it ends, and ends early when its client goes away.
std::unique_ptr<grpc::Service> MakeWorkerService(const Decoder& decoder,
                                                 const WorkerLimits& limits);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_SERVICE_WORKER_SERVICE_H_
