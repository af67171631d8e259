"""SNMP polling (kind "snmp-poll"): thousands of devices on a staggered schedule, as sampled series.

One thread runs all devices (asyncio); another hands what was read to the node, once a second. A device
that does not answer costs its own tries and is asked less and less often; the others do not notice.
"""

import asyncio
import json
import zlib
from collections import deque
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from collectors.polling import Poller
from collectors.series_book import Sample, SeriesBook, sample_batch
from collectors.snmp.client import Client, library
from collectors.snmp.devices import Device, PollOptions, read_devices
from collectors.snmp.profiles import Profile, TableRule, load_profiles, objects_of
from collectors.snmp.readings import (
    NEIGHBOR_OBJECTS,
    Reader,
    Value,
    Walk,
    option_row,
)  # fmt: skip
from collectors.source_ledger import SourceLedger
from collectors.sources import Offer, Source
from runtime.component import Context
from runtime.kept_file import KeptFile
from runtime.registry import Part
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import TransientError
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import address_pair
from telemetry.sample_series import SampleKind
from telemetry.schemas import ALARM, OPTION
from telemetry.x733 import CLEARED

SYS_UP_TIME, SYS_NAME, SYS_OBJECT_ID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.1.2.0"
HOUR_NS = 3_600_000_000_000
GETS_MAX = 24  # instances in one request
HANDOVER_SECONDS = 1.0
STOP_SECONDS = 4.0


class SnmpPoller:
    """The source: devices, schedule, hand-over."""

    def __init__(
        self, name: str, options: PollOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._name = name
        self._options = options
        self._context = context
        self._offer = offer
        self._profiles, self._names = load_profiles(options.profile_files, options.mib_files)
        self._book = SeriesBook(series_max=options.series_max)
        self._reader = Reader(self._names, self._book)
        self._ledger = SourceLedger("snmp-poll", senders_max=options.devices_max)
        library()
        self.devices: list[Device] = read_devices(options, self._profiles)
        # Which devices' alarms may be up: what clears them after a restart of ours.
        self._kept = KeptFile(folder / "devices-down.json", context)
        self._down: set[str] = set()
        self._waiting: deque[tuple[list[Sample], list[dict[str, Any]], list[dict[str, Any]]]] = (
            deque()
        )
        self._samples_waiting = 0
        self._lock = Lock()  # of what waits: one thread asks, another hands over
        self._parcel: tuple[str, list[Batch]] | None = None  # its token, and what is in it
        self._parcels = 0
        self._started_ns = context.clock.now_ns()
        self._ended = Event()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handing = Poller(
            context, self.hand_over, floor_seconds=HANDOVER_SECONDS, pause_seconds_max=30.0
        )
        metrics = context.metrics
        self._polls = metrics.counter(
            "snmp_polls_total",
            "polls of devices by how they ended",
            label="end",
            values=("ok", "failed"),
        )
        self._requests = metrics.counter(
            "snmp_requests_total",
            "gets and walks by what became of them",
            label="end",
            values=("answered", "timed_out", "error"),
        )
        self._varbinds = metrics.counter("snmp_varbinds_total", "values read")
        self._dropped = metrics.counter(
            "snmp_samples_dropped_total",
            "samples that became nothing, by reason",
            label="why",
            values=("node_away", "walk_cut"),
        )
        self._failing = metrics.gauge("snmp_devices_failing", "devices that do not answer now")

    # ---- life

    def start(self) -> None:
        """Start asking."""
        self.prepare()
        self._handing.start()
        self._thread = Thread(target=self._run, name=self._context.name, daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Read which alarms may be up."""
        self._down = set(self._kept.load() or ())
        for device in self.devices:
            device.told_down = device.entity in self._down

    def stop(self) -> None:
        """Stop asking; what was read and not yet handed over is tried once more."""
        self._ended.set()
        loop = self._loop
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(self._cancel)
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self._handing.stop()

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def health(self) -> str:
        """Return which devices do not answer, or why nothing is handed over."""
        bad = [one for one in self.devices if one.trouble]
        if bad:
            first = bad[0]
            return (
                f"{len(bad)} of {len(self.devices)} devices do not answer, first "
                f"{first.entity} ({first.settings.address}): {first.trouble}"
            )
        return self._handing.health()

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except asyncio.CancelledError:
            return

    async def _all(self) -> None:
        self._loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(self._options.concurrency_max)
        await asyncio.gather(*(self._device(one, gate) for one in self.devices))

    async def _device(self, device: Device, gate: asyncio.Semaphore) -> None:
        """Ask one device for ever. Its place in the interval is its own, the same after a restart."""
        place = zlib.crc32(device.settings.address.encode()) % 10_000 / 10_000
        await asyncio.sleep(place * device.interval_seconds)
        clock = self._context.clock
        while not self._ended.is_set():
            began = clock.monotonic_ns()
            async with gate:
                await self.poll(device)
            wait = device.interval_seconds * 2.0 ** min(device.failures, 10)
            if device.failures:
                wait = max(min(wait, self._options.pause_seconds_max), device.interval_seconds)
            spent = (clock.monotonic_ns() - began) / 1e9
            await asyncio.sleep(max(wait - spent, 0.05))

    # ---- one device

    async def poll(self, device: Device) -> None:
        """Ask a device for everything once, and keep what it said for the hand-over."""
        clock = self._context.clock
        began_ns = clock.monotonic_ns()
        samples: list[Sample] = []
        options: list[dict[str, Any]] = []
        trouble = ""
        client: Client | None = None
        try:
            client = Client(device.target)
            await self._ask(device, client, samples, options)
        except TransientError as error:
            trouble = str(error)
        except Exception as error:  # one device's answer must not end the others
            self._context.log.exception("device_broken device=%s", device.entity)
            trouble = f"our own fault, please report it: {error!r}"
        now_ns = clock.now_ns()
        self._say(samples, device, "snmp_reachable", 0.0 if trouble else 1.0, "", now_ns)
        if not trouble:
            spent = (clock.monotonic_ns() - began_ns) / 1e9
            self._say(samples, device, "snmp_poll_duration", spent, "s", now_ns)
        if client is not None:
            self._count(device, client)
        self._polls.add("failed" if trouble else "ok")
        alarms = self._judge(device, trouble, now_ns)
        self._keep(samples, options, alarms)

    async def _ask(
        self, device: Device, client: Client, samples: list[Sample], options: list[dict[str, Any]]
    ) -> None:
        clock, memory = self._context.clock, device.memory
        await client.open()
        about = await client.get([SYS_UP_TIME, SYS_NAME, SYS_OBJECT_ID])
        now_ns = clock.now_ns()
        uptime = about.get(SYS_UP_TIME)
        if isinstance(uptime, int):
            if memory.up(uptime, now_ns):
                self._context.log.warning("device_restarted device=%s", device.entity)
                device.absent.clear()
            self._say(samples, device, "uptime", uptime / 100, "s", now_ns)
        named: dict[tuple[str, int], str] = {}
        walks: dict[str, Walk] = {}
        for profile in device.profiles:
            if profile.file.scalar:
                values = await self._scalars(device, client, profile)
                at_ns = clock.now_ns()
                samples += self._reader.scalars(device.entity, profile, values, memory, at_ns)
            for table in profile.file.table:
                await self._table(device, client, table, walks)
                at_ns = clock.now_ns()
                samples += self._reader.table(device.entity, table, walks, memory, at_ns)
                named |= self._reader.interface_names(table, walks)
            if profile.file.neighbors:
                for name in NEIGHBOR_OBJECTS:
                    await self._walk(device, client, name, walks)
                heard = self._reader.neighbors(walks)
                named |= heard
                if heard and (system := about.get(SYS_NAME)):  # so its neighbors call it
                    said = {"entity": device.entity, "system": self._reader.text("sysName", system)}
                    named["device", 0] = json.dumps(said, ensure_ascii=False, sort_keys=True)
        options += self._news(device, named, now_ns)

    async def _scalars(self, device: Device, client: Client, profile: Profile) -> dict[str, Value]:
        """Return a profile's scalars by object name; those of a MIB it has not are not asked again."""
        now_ns = self._context.clock.now_ns()
        objects = [name for rule in profile.file.scalar for name in objects_of(rule)]
        wanted = {
            f"{self._names.oid(name)}.0": name
            for name in objects
            if device.absent.get(name, 0) <= now_ns
        }
        found: dict[str, Value] = {}
        oids = list(wanted)
        for first in range(0, len(oids), GETS_MAX):
            said = await client.get(oids[first : first + GETS_MAX])
            found |= {wanted[oid]: value for oid, value in said.items() if oid in wanted}
        for name in wanted.values():
            if found.get(name) is None:
                device.absent[name] = now_ns + HOUR_NS
        return found

    async def _table(
        self, device: Device, client: Client, table: TableRule, walks: dict[str, Walk]
    ) -> None:
        """Walk the columns of a table. Where there are no rows, what would name them is not read."""
        for rule in table.column:
            found = await self._walk(device, client, rule.object, walks)
            if not found and rule.instead:
                await self._walk(device, client, rule.instead, walks)
        if not any(
            walks.get(name) for rule in table.column for name in (rule.object, rule.instead)
        ):
            return
        beside = [
            name for rule in table.column for name in objects_of(rule)[1:] if name != rule.instead
        ]
        index = self._reader.index_objects(table)
        labels: list[str] = []
        for name in table.label:  # the first column that has rows is enough, unless some are empty
            if name in index:
                break
            labels.append(name)
        for name in dict.fromkeys(
            [*beside, *([table.discontinuity] if table.discontinuity else [])]
        ):
            await self._walk(device, client, name, walks)
        for name in labels:
            found = await self._walk(device, client, name, walks)
            if found and all(found.values()):
                break

    async def _walk(
        self, device: Device, client: Client, name: str, walks: dict[str, Walk]
    ) -> Walk:
        if name in walks:
            return walks[name]
        now_ns = self._context.clock.now_ns()
        if device.absent.get(name, 0) > now_ns:
            return {}
        found = walks[name] = await client.walk(self._names.oid(name))
        if not found:
            device.absent[name] = now_ns + HOUR_NS
        return found

    def _say(
        self,
        samples: list[Sample],
        device: Device,
        metric: str,
        value: float,
        unit: str,
        at_ns: int,
    ) -> None:
        series = self._book.id(device.entity, metric, unit=unit)
        samples.append((at_ns, series, value, SampleKind.GAUGE))

    def _news(
        self, device: Device, named: dict[tuple[str, int], str], now_ns: int
    ) -> list[dict[str, Any]]:
        """Return option rows for names that changed; all of them once an hour."""
        memory = device.memory
        if now_ns - memory.told_ns >= HOUR_NS:
            memory.named, memory.told_ns = {}, now_ns
        changed = {key: name for key, name in named.items() if memory.named.get(key) != name}
        memory.named |= changed
        pair = address_pair(device.settings.address)
        return [
            option_row(table, key, name, address=pair, at_ns=now_ns)
            for (table, key), name in changed.items()
        ]

    def _count(self, device: Device, client: Client) -> None:
        asked = client.asked
        self._requests.add("answered", asked.answered)
        self._requests.add("timed_out", asked.timed_out)
        self._requests.add("error", asked.errors)
        self._varbinds.array[0] += asked.varbinds
        self._dropped.add("walk_cut", asked.cut)
        self._ledger.count(
            device.settings.address,
            device.settings.name,
            decoded=asked.answered,
            lost_wire=asked.timed_out,
            undecodable=asked.errors,
            restarts=int(device.memory.restarted),
        )

    def _judge(self, device: Device, trouble: str, now_ns: int) -> list[dict[str, Any]]:
        """Take how a poll ended; return an alarm's raise or clear where that changed something."""
        if trouble:
            device.failures += 1
            if trouble != device.trouble:
                pause = min(
                    device.interval_seconds * 2.0 ** min(device.failures, 10),
                    max(self._options.pause_seconds_max, device.interval_seconds),
                )
                self._context.log.warning(
                    "device_fails device=%s address=%s: %s; next try in %g s",
                    device.entity, device.settings.address, trouble, pause,
                )  # fmt: skip
        elif device.failures:
            self._context.log.warning(
                "device_answers device=%s failures=%d", device.entity, device.failures
            )
        device.trouble = trouble
        if not trouble:
            device.failures = 0
        self._failing.set(sum(1 for one in self.devices if one.trouble))
        down = bool(trouble) and device.failures >= self._options.down_after
        if down == device.told_down or (trouble and not down):
            return []
        device.told_down = down
        return [
            alarm_row(
                source=self._name,
                kind="snmpUnreachable",
                entity=device.entity,
                severity="major" if down else CLEARED,
                changed_ns=now_ns,
                title=f"{device.entity} does not answer SNMP"
                if down
                else f"{device.entity} answers SNMP",
                probable_cause="communicationsSubsystemFailure",
                text=trouble,
                detail={"address": device.settings.address, "polls_in_vain": device.failures},
            )
        ]

    # ---- hand-over

    def _keep(
        self,
        samples: list[Sample],
        options: list[dict[str, Any]],
        alarms: list[dict[str, Any]],
    ) -> None:
        """Keep for the hand-over; while the node is away the oldest samples go, alarms never do."""
        with self._lock:
            self._waiting.append((samples, options, alarms))
            self._samples_waiting += len(samples)
            old = iter(self._waiting)
            while self._samples_waiting > self._options.waiting_max:
                oldest = next(old)[0]
                self._dropped.add("node_away", len(oldest))
                self._samples_waiting -= len(oldest)
                oldest.clear()

    def hand_over(self) -> float:
        """Offer what waits to the node; raises TransientError, and then offers the same again."""
        now_ns = self._context.clock.now_ns()
        if self._parcel is None:
            batches = self._collect(now_ns)
            if not batches:
                return HANDOVER_SECONDS
            self._parcels += 1
            self._parcel = (f"{self._name}:{self._started_ns}:{self._parcels}", batches)
        token, batches = self._parcel
        raised, cleared = _told(batches)
        self._remember(self._down | raised)
        self._offer(batches, token=token)
        self._parcel = None
        self._remember(self._down - cleared)
        self._book.arrived(batches)
        return HANDOVER_SECONDS

    def _remember(self, down: set[str]) -> None:
        if down != self._down:
            self._kept.save(sorted(down))
            self._down = down

    def _collect(self, now_ns: int) -> list[Batch]:
        samples: list[Sample] = []
        options: list[dict[str, Any]] = []
        alarms: list[dict[str, Any]] = []
        with self._lock:
            waiting, self._waiting, self._samples_waiting = self._waiting, deque(), 0
        for some, named, judged in waiting:
            samples += some
            options += named
            alarms += judged
        made: list[Batch] = self._book.waiting() if samples else []
        if samples:
            made.append(sample_batch(samples, self._name, now_ns))
        for schema, rows in ((OPTION, options), (ALARM, alarms)):
            if rows:
                made.append(batch_from_rows(schema, rows, source=self._name, arrival_ns=now_ns))
        made += self._ledger.report(now_ns)
        self._ledger.reported()  # it lies in the parcel, which is offered until it is taken
        return made


def _told(batches: list[Batch]) -> tuple[set[str], set[str]]:
    """Return the entities (raised, cleared) last in a parcel."""
    last: dict[str, str] = {}
    for batch in batches:
        if batch.schema is ALARM:
            last.update(zip(batch.texts("entity"), batch.texts("state"), strict=True))
    cleared = {entity for entity, state in last.items() if state == "cleared"}
    return set(last) - cleared, cleared


def make(name: str, options: Any, context: Context, offer: Offer, folder: Path) -> Source:
    """Return an inert poller."""
    return SnmpPoller(name, options, context, offer, folder)


SOURCE = Part(
    "SNMP polling (v1, v2c, v3) by profiles",
    make,
    PollOptions,
    sheds="nothing: a poll that takes longer than its interval makes the next one later",
)
