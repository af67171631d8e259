"""What incidents say is down: the same in each run, of few of their alarms, also when the map has changed."""

import msgspec
import numpy as np

from alerting.config import AlertingSettings
from correlator.tables.network_map import FileNetworkMap, LinkEntry, NetworkFile, RouterEntry
from runtime.checkpoint import Snapshot, read_array, write_array
from tests.unit.alerting.test_incidents import chain_network, newest
from tocsin.testing.alarms import AlarmWorld


def triangle(mark: str) -> FileNetworkMap:
    """Return x, y and a, each with a link to both others; a also has one to c."""
    links = [("x", "y"), ("x", "a"), ("y", "a"), ("a", "c")]
    return FileNetworkMap(
        NetworkFile(
            router=[
                RouterEntry(name=name + mark, address=f"192.0.2.{i + 1}")
                for i, name in enumerate("xyac")
            ],
            link=[
                LinkEntry(name=f"{p}-{q}{mark}", a=p + mark, a_index=i + 1, b=q + mark, b_index=i + 1)
                for i, (p, q) in enumerate(links)
            ],
        )
    )  # fmt: skip


def test_of_nodes_without_links_the_one_that_is_mute_is_the_cause() -> None:
    """x, y and a have lost two links each; x and a speak. Many names: sets have an order by chance."""
    for mark in map(str, range(20)):
        world = AlarmWorld(network=triangle(mark))
        down = [world.report("linkDown", f"{node}{mark}:{port}", "critical")
                for node, port in (("x", 1), ("a", 2), ("a", 3))]  # fmt: skip
        found = newest(world, world.second(*down), world.second(seconds=20))
        (told,) = found.values()
        assert (told["causes"][0]["kind"], told["causes"][0]["entity"]) == ("node-down", f"y{mark}")


def moved_on(world: AlarmWorld, network: FileNetworkMap, *, drop: str = "") -> AlarmWorld:
    """Return a node that goes on from the checkpoint of another, with a map of its own."""
    kept = Snapshot()
    world.stage.snapshot(kept)
    if drop:  # as a version wrote it that did not know the field
        written = read_array(kept, "alarms")
        assert written is not None
        data = msgspec.msgpack.decode(written.tobytes())
        for fields in data["incidents"]["all"]:
            del fields[drop]
        kept = Snapshot()
        write_array(kept, "alarms", np.frombuffer(msgspec.msgpack.encode(data), np.uint8))
    after = AlarmWorld(world.settings, network=network, now_ns=world.now_ns)
    after.stage.restore(kept)
    return after


def test_links_that_the_map_has_no_more_end_nothing() -> None:
    ends = ("x:1", "a:2")
    world = AlarmWorld(network=triangle(""))
    world.second(*[world.report("linkDown", end, "major") for end in ends], seconds=20)
    network = FileNetworkMap(NetworkFile(router=[RouterEntry(name="x", address="192.0.2.1")]))
    after = moved_on(world, network)
    worse = [after.report("linkDown", end, "critical") for end in ends]
    (told,) = newest(after, after.second(*worse, seconds=20)).values()
    assert (told["severity"], told["causes"][0]["kind"]) == ("critical", "linkDown")


def test_what_cuts_is_known_without_a_look_at_all_symptoms() -> None:
    world = AlarmWorld(AlertingSettings(storm_alarms=1000), network=chain_network(20))
    cut = [world.report("linkDown", f"{node}:{port}", "critical", probable_cause="lossOfSignal")
           for node, port in (("a3", 2), ("a4", 1))]  # fmt: skip
    felt = [world.report(f"bgpDown{i}", f"a{5 + i % 9}", "major") for i in range(300)]
    world.second(*cut)
    world.second(*felt, seconds=20)
    for one in (
        world,
        moved_on(world, world.network),
        moved_on(world, world.network, drop="cutting"),
    ):
        (incident,) = one.stage.incidents.all.values()
        assert (len(incident.members), len(incident.cutting)) == (302, 2)
        assert incident.links_down() == {"a3-a4"}
        one.second(*[row | {"state": "cleared"} for row in cut], seconds=60)
        assert incident.links_down() == set()
        assert len(incident.cutting) == 2
        incident.leave(next(iter(incident.cutting)))
        assert set(incident.cutting) < set(incident.members)
