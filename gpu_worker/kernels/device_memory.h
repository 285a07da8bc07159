// Device memory and streams, owned. Needs no CUDA headers. Everything is on the process's device 0
// (CUDA_VISIBLE_DEVICES chooses which that is).
#ifndef ATTIC_GPU_WORKER_KERNELS_DEVICE_MEMORY_H_
#define ATTIC_GPU_WORKER_KERNELS_DEVICE_MEMORY_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attic::worker {

// OK when device 0 can be used; UNAVAILABLE with the driver's reason when there is none.
absl::Status CheckDevice();

// An ordered queue of device work. Not thread-safe.
class DeviceStream {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceStream>> Create();
  // Waits for the queued work.
  ~DeviceStream();
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  void* handle() const { return handle_; }  // cudaStream_t

  // Waits for the queued work; reports the first error of any of it.
  absl::Status Synchronize();

  // Queues a copy from pageable host memory, which may be reused on return.
  absl::Status CopyToDevice(void* device, const void* host, size_t bytes);
  // Copies to host memory and waits for it.
  absl::Status CopyToHost(void* host, const void* device, size_t bytes);
  // Queues a copy between places that do not overlap.
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes);

 private:
  explicit DeviceStream(void* handle) : handle_(handle) {}
  void* handle_;
};

// Device memory that grows. Move-only; not thread-safe.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  // Makes at least `bytes` available, losing the contents when it has to allocate. Waits for the
  // device then. RESOURCE_EXHAUSTED when the memory does not suffice.
  absl::Status Reserve(size_t bytes);

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  float* floats() const { return static_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_KERNELS_DEVICE_MEMORY_H_
