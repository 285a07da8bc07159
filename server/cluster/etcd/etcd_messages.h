// Conversions between etcd's messages and etcd_types.h. What etcd sent is checked.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_ETCD_MESSAGES_H_
#define ATTIC_SERVER_CLUSTER_ETCD_ETCD_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "etcd/kv.pb.h"
#include "etcd/rpc.pb.h"
#include "server/cluster/etcd/etcd_types.h"

namespace attic {

// INVALID_ARGUMENT for an empty key or one over kEtcdKeyBytesMax.
absl::Status CheckEtcdKey(const std::string& key);

// The least key that is greater than all that begin with `prefix`, as etcd's range_end.
std::string EtcdPrefixEnd(const std::string& prefix);

// INVALID_ARGUMENT for keys, RESOURCE_EXHAUSTED for values over kEtcdValueBytesMax.
absl::StatusOr<etcdserverpb::PutRequest> ToWire(const EtcdPut& put);
// Also RESOURCE_EXHAUSTED over kEtcdTransactionOperationsMax.
absl::StatusOr<etcdserverpb::TxnRequest> ToWire(const EtcdTransaction& transaction);

// INTERNAL when the key does not begin with `prefix` or a number cannot be. Both take the strings
// of their argument.
absl::StatusOr<EtcdKeyValue> FromWire(const std::string& prefix, mvccpb::KeyValue& entry);
// Also INTERNAL when the change is older than `from_revision`.
absl::StatusOr<EtcdEvent> FromWire(const std::string& prefix, int64_t from_revision,
                                   mvccpb::Event& event);

// The revision of a header; INTERNAL when it cannot be one.
absl::StatusOr<int64_t> RevisionOf(const etcdserverpb::ResponseHeader& header);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_ETCD_MESSAGES_H_
