#include "gpu_worker/kernels/device_memory.h"

#include <cuda_runtime_api.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gpu_worker/kernels/cuda_status.h"

namespace attic::worker {
namespace {

cudaStream_t Stream(void* handle) { return static_cast<cudaStream_t>(handle); }

absl::Status Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, void* stream,
                  const char* operation) {
  if (bytes == 0) return absl::OkStatus();
  return CudaStatus(cudaMemcpyAsync(to, from, bytes, kind, Stream(stream)), operation);
}

}  // namespace

absl::Status CheckDevice() {
  int count = 0;  // left untouched on failure
  ATTIC_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&count), "no usable CUDA device"));
  if (count == 0) return absl::UnavailableError("no CUDA device");
  return CudaStatus(cudaSetDevice(0), "cudaSetDevice(0)");
}

absl::StatusOr<std::unique_ptr<DeviceStream>> DeviceStream::Create() {
  cudaStream_t stream = nullptr;
  ATTIC_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  return std::unique_ptr<DeviceStream>(new DeviceStream(stream));
}

DeviceStream::~DeviceStream() {
  cudaStreamSynchronize(Stream(handle_));
  cudaStreamDestroy(Stream(handle_));
}

absl::Status DeviceStream::Synchronize() {
  return CudaStatus(cudaStreamSynchronize(Stream(handle_)), "waiting for the device");
}

absl::Status DeviceStream::CopyToDevice(void* device, const void* host, size_t bytes) {
  return Copy(device, host, bytes, cudaMemcpyHostToDevice, handle_, "copy to the device");
}

absl::Status DeviceStream::CopyToHost(void* host, const void* device, size_t bytes) {
  ATTIC_RETURN_IF_ERROR(
      Copy(host, device, bytes, cudaMemcpyDeviceToHost, handle_, "copy from the device"));
  return Synchronize();
}

absl::Status DeviceStream::CopyOnDevice(void* to, const void* from, size_t bytes) {
  return Copy(to, from, bytes, cudaMemcpyDeviceToDevice, handle_, "copy on the device");
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

absl::Status DeviceBuffer::Reserve(size_t bytes) {
  if (bytes <= bytes_) return absl::OkStatus();
  if (data_ != nullptr) cudaFree(std::exchange(data_, nullptr));
  bytes_ = 0;
  const std::string operation = absl::StrCat("cudaMalloc of ", bytes, " bytes");
  ATTIC_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&data_, bytes), operation.c_str()));
  bytes_ = bytes;
  return absl::OkStatus();
}

}  // namespace attic::worker
