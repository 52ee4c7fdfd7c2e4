"""Decodes posts of OTLP's JSON by the official protobufs. Reads a list of {"path", "body"} from the file that is named,
or else from standard input; writes a list of decoded messages. Called by collector.ts and otlp_receiver.rs. A field
that the protobufs don't have is an error."""
import base64
import binascii
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES = {"logs": ExportLogsServiceRequest, "traces": ExportTraceServiceRequest}
# OTLP's JSON has these as hexadecimal digits, where protobuf's own JSON has base64.
IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}


def as_protobuf(value):
    """The value with its ids as protobuf's own JSON has them."""
    if isinstance(value, list):
        return [as_protobuf(one) for one in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, inner in value.items():
        if key in IDS:
            octets = binascii.unhexlify(inner)
            assert len(octets) == IDS[key], f"{key} has {len(octets)} octets"
            inner = base64.b64encode(octets).decode()
        out[key] = as_protobuf(inner)
    return out


def decode(post):
    message = MESSAGES[post["path"].rsplit("/", 1)[-1]]()
    json_format.ParseDict(as_protobuf(json.loads(post["body"])), message, ignore_unknown_fields=False)
    assert message.IsInitialized() and len(message.SerializeToString()) > 0
    return json_format.MessageToDict(message)


with open(sys.argv[1], encoding="utf-8") if len(sys.argv) > 1 else sys.stdin as posts:
    json.dump([decode(post) for post in json.load(posts)], sys.stdout)
