"""What `tocsin doctor` finds, and that each finding says what to do."""

from pathlib import Path

from click.testing import CliRunner

from tocsin.cli.doctor import doctor, receive_buffers


def test_a_buffer_that_is_not_granted_names_the_sysctl() -> None:
    good, text = receive_buffers(33_554_432, 4_194_304)
    assert not good
    assert "4194304 bytes are granted, 33554432 asked for" in text
    assert "sysctl -w net.core.rmem_max=33554432" in text
    assert receive_buffers(33_554_432, 33_554_432)[0]


def test_findings_end_with_exit_code_3_and_a_clean_state_with_0(tmp_path: Path) -> None:
    config = tmp_path / "tocsin.toml"
    config.write_text(
        '[collectors.flow]\nkind = "flow"\nlisten = "udp://127.0.0.1:0"\n'
        "receive_buffer_bytes = 65536\n",
        "utf-8",
    )
    state = tmp_path / "state"
    state.mkdir()
    arguments = ["-c", str(config), "--state", str(state)]
    clean = CliRunner().invoke(doctor, arguments)
    assert "receive buffers of 65536 bytes are granted" in clean.output
    assert "no node runs on this state folder" in clean.output
    assert clean.exit_code == 0, clean.output
    (state / "node.sqlite.damaged-1").touch()
    (state / "node.sock").touch()
    found = CliRunner().invoke(doctor, arguments)
    assert found.exit_code == 3
    assert "was set aside as damaged" in found.output
    assert "no node answers: start it with `tocsin run`" in found.output
