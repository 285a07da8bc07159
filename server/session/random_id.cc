#include "server/session/random_id.h"

#include <cstdint>
#include <random>

namespace attic {

std::string RandomId() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::random_device device;
  std::string id;
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = device();
    for (int digit = 0; digit < 8; ++digit) {
      id.push_back(kDigits[bits & 15]);
      bits >>= 4;
    }
  }
  return id;
}

}  // namespace attic
