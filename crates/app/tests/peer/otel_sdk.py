"""Sends log records as any service with the OpenTelemetry SDK does, and prints what it sent.

Configured by the SDK's own environment variables alone. argv: how many records.
"""

import json
import logging
import sys

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

LEVELS = [
    (logging.DEBUG, 5),
    (logging.INFO, 9),
    (logging.WARNING, 13),
    (logging.ERROR, 17),
    (logging.CRITICAL, 21),
]

provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logger = logging.getLogger("press")
logger.setLevel(logging.DEBUG)
logger.propagate = False
logger.addHandler(LoggingHandler(logger_provider=provider))
tracer = TracerProvider().get_tracer("press")

for number in range(int(sys.argv[1])):
    level, severity = LEVELS[number % len(LEVELS)]
    sent = {"number": number, "severity": severity, "body": f"sheet {number} \u2713 \"\\\n"}
    with tracer.start_as_current_span("print") as span:
        context = span.get_span_context()
        sent["trace"] = format(context.trace_id, "032x")
        sent["span"] = format(context.span_id, "016x")
        extra = {"number": number, "ratio": number / 4, "ok": True, "raw": b"\x00\xff"}
        logger.log(level, sent["body"], extra=extra)
    print(json.dumps(sent))

provider.force_flush()
provider.shutdown()
