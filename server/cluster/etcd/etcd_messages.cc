#include "server/cluster/etcd/etcd_messages.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

absl::Status CheckCount(size_t count, const char* what) {
  if (count <= kEtcdTransactionOperationsMax) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      what, ": ", count, ", kEtcdTransactionOperationsMax is ", kEtcdTransactionOperationsMax));
}

absl::StatusOr<etcdserverpb::Compare> ToWire(const EtcdCompare& compare) {
  ATTIC_RETURN_IF_ERROR(CheckEtcdKey(compare.key));
  etcdserverpb::Compare wire;
  wire.set_result(etcdserverpb::Compare::EQUAL);
  wire.set_key(compare.key);
  switch (compare.target) {
    case EtcdCompare::Target::kCreateRevision:
      wire.set_target(etcdserverpb::Compare::CREATE);
      wire.set_create_revision(compare.number);
      break;
    case EtcdCompare::Target::kModRevision:
      wire.set_target(etcdserverpb::Compare::MOD);
      wire.set_mod_revision(compare.number);
      break;
    case EtcdCompare::Target::kVersion:
      wire.set_target(etcdserverpb::Compare::VERSION);
      wire.set_version(compare.number);
      break;
  }
  return wire;
}

absl::Status CheckReceivedKey(const std::string& prefix, const std::string& key) {
  if (!key.empty() && absl::StartsWith(key, prefix)) return absl::OkStatus();
  return absl::InternalError("etcd sent a key that was not asked for");
}

}  // namespace

absl::Status CheckEtcdKey(const std::string& key) {
  if (key.empty()) return absl::InvalidArgumentError("key: empty");
  if (key.size() <= kEtcdKeyBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("key: ", key.size(), " bytes, kEtcdKeyBytesMax is ", kEtcdKeyBytesMax));
}

std::string EtcdPrefixEnd(const std::string& prefix) {
  std::string end = prefix;
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (end.empty()) return std::string(1, '\0');  // etcd: no end
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

absl::StatusOr<etcdserverpb::PutRequest> ToWire(const EtcdPut& put) {
  ATTIC_RETURN_IF_ERROR(CheckEtcdKey(put.key));
  if (put.value.size() > kEtcdValueBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "value: ", put.value.size(), " bytes, kEtcdValueBytesMax is ", kEtcdValueBytesMax));
  }
  etcdserverpb::PutRequest wire;
  wire.set_key(put.key);
  wire.set_value(put.value);
  wire.set_lease(put.lease);
  return wire;
}

absl::StatusOr<etcdserverpb::TxnRequest> ToWire(const EtcdTransaction& transaction) {
  ATTIC_RETURN_IF_ERROR(CheckCount(transaction.compares.size(), "compares"));
  ATTIC_RETURN_IF_ERROR(
      CheckCount(transaction.puts.size() + transaction.deletes.size(), "puts and deletes"));
  etcdserverpb::TxnRequest wire;
  for (const EtcdCompare& compare : transaction.compares) {
    ATTIC_ASSIGN_OR_RETURN(*wire.add_compare(), ToWire(compare));
  }
  for (const EtcdPut& put : transaction.puts) {
    ATTIC_ASSIGN_OR_RETURN(*wire.add_success()->mutable_request_put(), ToWire(put));
  }
  for (const std::string& key : transaction.deletes) {
    ATTIC_RETURN_IF_ERROR(CheckEtcdKey(key));
    wire.add_success()->mutable_request_delete_range()->set_key(key);
  }
  return wire;
}

absl::StatusOr<EtcdKeyValue> FromWire(const std::string& prefix, mvccpb::KeyValue& entry) {
  ATTIC_RETURN_IF_ERROR(CheckReceivedKey(prefix, entry.key()));
  if (entry.create_revision() < 1 || entry.mod_revision() < entry.create_revision() ||
      entry.version() < 1) {
    return absl::InternalError("etcd sent revisions of a key that cannot be");
  }
  return EtcdKeyValue{.key = std::move(*entry.mutable_key()),
                      .value = std::move(*entry.mutable_value()),
                      .create_revision = entry.create_revision(),
                      .mod_revision = entry.mod_revision(),
                      .version = entry.version(),
                      .lease = entry.lease()};
}

absl::StatusOr<EtcdEvent> FromWire(const std::string& prefix, int64_t from_revision,
                                   mvccpb::Event& event) {
  if (event.kv().mod_revision() < from_revision) {
    return absl::InternalError("etcd sent changes out of order");
  }
  EtcdEvent result;
  if (event.type() == mvccpb::Event::PUT) {
    ATTIC_ASSIGN_OR_RETURN(result.entry, FromWire(prefix, *event.mutable_kv()));
    return result;
  }
  if (event.type() != mvccpb::Event::DELETE) {
    return absl::InternalError("etcd sent a change of unknown kind");
  }
  ATTIC_RETURN_IF_ERROR(CheckReceivedKey(prefix, event.kv().key()));
  result.deleted = true;
  result.entry.key = std::move(*event.mutable_kv()->mutable_key());
  result.entry.mod_revision = event.kv().mod_revision();
  return result;
}

absl::StatusOr<int64_t> RevisionOf(const etcdserverpb::ResponseHeader& header) {
  if (header.revision() < 1) return absl::InternalError("etcd sent no revision");
  return header.revision();
}

}  // namespace attic
