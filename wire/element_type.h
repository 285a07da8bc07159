// Element types on the wire, for the other conversions.
#ifndef ATTIC_WIRE_ELEMENT_TYPE_H_
#define ATTIC_WIRE_ELEMENT_TYPE_H_

#include "absl/status/statusor.h"
#include "attention/element_type.h"
#include "attic/v1/common.pb.h"

namespace attic::wire {

v1::ElementType ToWire(ElementType type);

// INVALID_ARGUMENT naming `field` when the type is unknown or unspecified.
absl::StatusOr<ElementType> FromWire(v1::ElementType type, const char* field);

}  // namespace attic::wire

#endif  // ATTIC_WIRE_ELEMENT_TYPE_H_
