"""The exam of a sink: what the courier relies on. The maker's peer must be up and accept."""

from collections.abc import Callable

from alerting.sinks import AlertSink, Parcel
from alerting.words.alert import Alert
from tocsin.testing.alarms import AlarmWorld

NOW_NS = 1_700_000_100_000_000_000
MakeSink = Callable[[], AlertSink]


def alerts() -> list[Alert]:
    """Return a raise and the clear of it, and a raise of another alarm."""
    world = AlarmWorld()
    one, two = (world.series("exporter", exporter=f"192.0.2.{i}") for i in (1, 2))
    made = world.tick([world.silence(one)])
    made += world.tick([world.silence(two)])
    for _ in range(2):
        made += world.tick([world.silence(two)])
    assert [(a.entity, a.state) for a in made] == [
        ("192.0.2.1", "raised"), ("192.0.2.2", "raised"), ("192.0.2.1", "cleared"),
    ]  # fmt: skip
    return made


def parcel(alert: Alert, attempt: int = 1) -> Parcel:
    """Return a delivery of an alert."""
    return Parcel(alert, f"{alert.change}-test", attempt)


def the_largest_batch_is_sent_and_answered(make: MakeSink) -> None:
    """`send` takes `batch_max` parcels and says what the other side said."""
    sink = make()
    assert sink.batch_max >= 1
    assert sink.send([parcel(alert) for alert in alerts()[:2]][: sink.batch_max], now_ns=NOW_NS)
    sink.close()


def a_repeated_delivery_is_harmless(make: MakeSink) -> None:
    """At least once means that the same parcel may come again, with a higher attempt."""
    sink = make()
    (first, *_) = alerts()
    for attempt in (1, 2, 3):
        assert sink.send([parcel(first, attempt)], now_ns=NOW_NS)
    sink.close()


def what_is_up_is_said_again(make: MakeSink) -> None:
    """`repeat` takes any number of alarms, also none."""
    sink = make()
    assert sink.repeat_seconds >= 0.0
    sink.repeat([], now_ns=NOW_NS)
    sink.repeat(alerts()[:2], now_ns=NOW_NS)
    sink.close()


def closing_twice_is_once(make: MakeSink) -> None:
    """Also of a sink that never sent."""
    sink = make()
    sink.close()
    sink.close()


CHECKS = (
    the_largest_batch_is_sent_and_answered,
    a_repeated_delivery_is_harmless,
    what_is_up_is_said_again,
    closing_twice_is_once,
)
