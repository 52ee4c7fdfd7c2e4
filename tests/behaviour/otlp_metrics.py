"""Decodes a request of OTLP metrics in JSON by the official protobufs. Takes its file, prints a line for each point:
metric, temporality, attributes, the span in seconds, value. A field that the protobufs don't have is an error."""

import sys

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality


def words(attributes):
    return ",".join(f"{one.key}={one.value.string_value}" for one in attributes)


def main(file):
    with open(file, encoding="utf-8") as text:
        request = Parse(text.read(), ExportMetricsServiceRequest(), ignore_unknown_fields=False)
    lines = []
    for resource in request.resource_metrics:
        lines.append(f"resource {words(resource.resource.attributes).rsplit('=', 1)[0]}")
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                temporality = AggregationTemporality.Name(data.aggregation_temporality).rsplit("_", 1)[1].lower()
                for point in data.data_points:
                    assert not point.exemplars, "exemplars"
                    span = (point.time_unix_nano - point.start_time_unix_nano) / 1e9
                    assert point.start_time_unix_nano % 10_000_000_000 == 0, "times are rounded"
                    if metric.WhichOneof("data") == "histogram":
                        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
                        assert sum(point.bucket_counts) == point.count and not point.HasField("sum")
                        bounds = list(point.explicit_bounds) + [float("inf")]
                        counts = zip(bounds, point.bucket_counts)
                        value = " ".join(f"{bound:g}:{count}" for bound, count in counts if count)
                    else:
                        assert data.is_monotonic
                        value = point.as_int
                    lines.append(f"{metric.name} {temporality} {words(point.attributes)} {span:g}s {value}")
    print("\n".join(sorted(lines)))


main(sys.argv[1])
