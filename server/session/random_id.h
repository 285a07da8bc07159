// Names nobody else has chosen.
#ifndef ATTIC_SERVER_SESSION_RANDOM_ID_H_
#define ATTIC_SERVER_SESSION_RANDOM_ID_H_

#include <string>

namespace attic {

// 128 bits from the operating system's source of randomness, as 32 hexadecimal digits.
std::string RandomId();

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_RANDOM_ID_H_
