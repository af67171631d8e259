"""Settings of the collectors."""

from typing import Annotated, Any, Literal

import msgspec

from runtime.settings import PositiveInt, PositiveSeconds, Settings

# At most half of the kernels' hash tables, which are as large as that (collectors.flow.streams, .sampling).
StreamsMax = Annotated[int, msgspec.Meta(ge=1, le=16_384)]
SamplingRate = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF_FFFF)]
BufferBytes = Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)]
ChunkBytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
SamplersMax = Annotated[int, msgspec.Meta(ge=1, le=65_536)]


class FlowDecoderSettings(Settings, frozen=True, kw_only=True):
    """Limits and rules of flow decoding. `[collectors.<name>.decoder]`."""

    templates_per_exporter_max: PositiveInt = 1024  # more are refused and counted
    # One not sent again for so long is forgotten; routers resend every 1-30 minutes.
    template_expiry_seconds: PositiveSeconds = 86_400.0
    held_bytes_max: PositiveInt = 4 * 1024 * 1024  # data sets that wait for their template
    held_bytes_per_exporter_max: PositiveInt = 256 * 1024  # of them for one exporter
    held_seconds: PositiveSeconds = 1800.0  # longer than that they do not wait
    # One stream (exporter, port, version, domain; with sFlow a sub-agent) may send so many datagrams a
    # second: a bound on what one exporter can cost the others. Of more a sample is taken, and its records
    # have their sampling rate raised, so that traffic keeps its size; the rest is shed and counted.
    # Templates and options data are never shed. 0 = no limit.
    datagrams_per_second_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    streams_max: StreamsMax = 8192  # (exporter, port, version, domain); the rest are counted as one
    streams_per_exporter_max: PositiveInt = 1024  # kept when room is made: domains can be invented
    samplers_max: SamplersMax = 65_536  # sampling rates by sampler, from options data
    names_max: PositiveInt = 262_144  # of interfaces, VRFs and applications, from options data
    names_per_exporter_max: PositiveInt = 65_536  # of them for one exporter
    counter_series_max: PositiveInt = 262_144  # counters of sFlow agents whose names are kept
    # times of exporters further off than that, corrected, are not believed
    clock_tolerance_seconds: PositiveSeconds = 300.0
    # "exported" takes the exporter's times as they stand, right or wrong: for `tocsin decode`.
    clock: Literal["corrected", "exported"] = "corrected"
    # Sampled headers: the packet the interface carried, or the innermost one of its tunnels.
    tunnels: Literal["outer", "inner"] = "outer"
    # {"192.0.2.0/24": 1000}: for exporters that do not say their rate. Most specific wins.
    sampling_override: dict[str, SamplingRate] = {}


class ListenerSettings(Settings, frozen=True, kw_only=True):
    """One input. `[collectors.<name>]`: kind "flow" is NetFlow v5, v9 and IPFIX, "sflow" sFlow v5."""

    kind: str  # `tocsin collectors list` shows them
    listen: str  # udp://host:port, host may be [::] or an IPv4 address; tcp:// and tls:// likewise
    receive_buffer_bytes: BufferBytes = 32 * 1024 * 1024  # asked for; the grant is read back
    datagrams_per_block: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1024  # decoded together
    queue_blocks_max: PositiveInt = 512  # between receiving and decoding; full = the kernel buffers
    connections_max: PositiveInt = 1024  # of tcp:// and tls:// inputs; those beyond are refused
    connections_per_sender_max: PositiveInt = 256  # of one address: it cannot take all of them
    connection_idle_seconds: PositiveSeconds = 7200.0  # silent for longer: closed
    chunk_bytes_max: ChunkBytes = 64 * 1024  # read of one connection before the next has its turn
    tls_certificate_file: str = ""  # PEM, the chain; tls:// needs it and the key
    tls_key_file: str = ""  # PEM, the key of the certificate
    tls_client_ca_file: str = ""  # PEM; where given, senders must show a certificate of these
    # A connection that takes longer to begin is closed.
    tls_handshake_seconds: PositiveSeconds = 10.0
    decoder: FlowDecoderSettings = FlowDecoderSettings()
    options: dict[str, Any] = {}  # a plug-in's own settings
