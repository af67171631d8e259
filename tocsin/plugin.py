"""The public names for those who write a collector, a source, a detector or a sink of their own.

What is here stays; everything else may change. A plug-in is a package with an entry point in
`tocsin.collectors`, `tocsin.sources`, `tocsin.detectors` or `tocsin.sinks` that names a `Part`;
`tocsin.testing` has the exams that ours sit as well. See docs/extend.md.
"""

from alerting.config import SinkSettings
from alerting.sinks import AlertSink, Parcel, RefusedError
from alerting.words.alert import Alert
from collectors.block import DatagramBlock, Decoder
from collectors.config import ListenerSettings
from collectors.foreign_sync import AlarmFeed, ForeignAlarm
from collectors.polling import Poller
from collectors.sources import Offer, Source, SourceSettings
from detectors.config import DetectionSettings
from detectors.detector import Detector, ScoreColumns
from runtime.checkpoint import read_array, write_array
from runtime.component import Context, SnapshotReader, SnapshotWriter
from runtime.registry import NoOptions, Part, Reads
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
    "AlarmFeed",
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
    "ForeignAlarm",
    "ListenerSettings",
    "Measure",
    "NoOptions",
    "Offer",
    "Parcel",
    "Part",
    "Poller",
    "Reads",
    "RefusedError",
    "Schema",
    "ScoreColumns",
    "Settings",
    "SinkSettings",
    "SnapshotReader",
    "SnapshotWriter",
    "Source",
    "SourceSettings",
    "TocsinError",
    "TransientError",
    "View",
    "read_array",
    "write_array",
]
