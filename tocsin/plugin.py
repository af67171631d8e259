"""The public names for those who write a collector, a detector or a sink of their own.

What is here stays; everything else may change. A plug-in is a package with an entry point in
`tocsin.collectors`, `tocsin.detectors` or `tocsin.sinks` that names a `Part`; `tocsin.testing` has
the exams that ours sit as well. See docs/extend.md.
"""

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.sinks import AlertSink, Parcel, RefusedError
from collectors.block import DatagramBlock, Decoder
from collectors.config import ListenerSettings
from detectors.config import DetectionSettings
from detectors.detector import Detector, ScoreColumns
from runtime.checkpoint import read_array, write_array
from runtime.component import Context, SnapshotReader, SnapshotWriter
from runtime.registry import NoOptions, Part
from runtime.settings import Settings
from telemetry.batch import Batch
from telemetry.errors import ConfigError, TocsinError, TransientError
from telemetry.schema import Field, Schema
from telemetry.schemas import FLOW, FRAME, LEDGER, OPTION, SAMPLE
from telemetry.views import Measure, View

__all__ = [
    "FLOW",
    "FRAME",
    "LEDGER",
    "OPTION",
    "SAMPLE",
    "Alert",
    "AlertSink",
    "Batch",
    "ConfigError",
    "Context",
    "DatagramBlock",
    "Decoder",
    "DetectionSettings",
    "Detector",
    "Field",
    "ListenerSettings",
    "Measure",
    "NoOptions",
    "Parcel",
    "Part",
    "RefusedError",
    "Schema",
    "ScoreColumns",
    "Settings",
    "SinkSettings",
    "SnapshotReader",
    "SnapshotWriter",
    "TocsinError",
    "TransientError",
    "View",
    "read_array",
    "write_array",
]
