#include "server/session/head_rows.h"

#include <cstring>

namespace attic {

std::span<const std::byte> HeadRows(std::span<const std::byte> interleaved, size_t heads,
                                    size_t head, size_t row_bytes, std::vector<std::byte>& buffer) {
  if (heads == 1) return interleaved;
  const size_t tokens = interleaved.size() / (heads * row_bytes);
  buffer.resize(tokens * row_bytes);
  const std::byte* in = interleaved.data() + head * row_bytes;
  for (size_t i = 0; i < tokens; ++i) {
    std::memcpy(buffer.data() + i * row_bytes, in + i * heads * row_bytes, row_bytes);
  }
  return buffer;
}

std::span<const float> GroupQueries(std::span<const float> query_sample, size_t kv_heads,
                                    size_t kv_head, size_t group, size_t head_dim,
                                    std::vector<float>& buffer) {
  if (kv_heads == 1) return query_sample;
  const size_t group_size = group * head_dim;
  const size_t count = query_sample.size() / (kv_heads * group_size);
  buffer.resize(count * group_size);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(buffer.data() + i * group_size,
                query_sample.data() + (i * kv_heads + kv_head) * group_size,
                group_size * sizeof(float));
  }
  return buffer;
}

}  // namespace attic
