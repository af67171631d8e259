"""MIB modules as text become names: of our own module, and of the standards'."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from collectors.snmp.names import load_names, shipped_names
from tocsin.cli import cli

ACME = """
ACME-MIB DEFINITIONS ::= BEGIN
IMPORTS
    MODULE-IDENTITY, OBJECT-TYPE, NOTIFICATION-TYPE, Integer32, enterprises FROM SNMPv2-SMI
    DisplayString, TEXTUAL-CONVENTION FROM SNMPv2-TC;
acme MODULE-IDENTITY LAST-UPDATED "202601010000Z" ORGANIZATION "x" CONTACT-INFO "x" DESCRIPTION "x"
    ::= { enterprises 55555 }
AcmeState ::= TEXTUAL-CONVENTION STATUS current DESCRIPTION "x" SYNTAX INTEGER { well(1), ill(2) }
Tenths ::= TEXTUAL-CONVENTION DISPLAY-HINT "d-1" STATUS current DESCRIPTION "x" SYNTAX Integer32
acmeTable OBJECT-TYPE SYNTAX SEQUENCE OF AcmeEntry MAX-ACCESS not-accessible STATUS current
    DESCRIPTION "x" ::= { acme 1 }
acmeEntry OBJECT-TYPE SYNTAX AcmeEntry MAX-ACCESS not-accessible STATUS current DESCRIPTION "x"
    INDEX { acmeUnit, IMPLIED acmeName } ::= { acmeTable 1 }
AcmeEntry ::= SEQUENCE { acmeUnit Integer32, acmeName DisplayString, acmeState AcmeState, acmeTemp Tenths }
acmeUnit OBJECT-TYPE SYNTAX Integer32 (1..9) MAX-ACCESS not-accessible STATUS current DESCRIPTION "x"
    ::= { acmeEntry 1 }
acmeName OBJECT-TYPE SYNTAX DisplayString MAX-ACCESS not-accessible STATUS current DESCRIPTION "x"
    ::= { acmeEntry 2 }
acmeState OBJECT-TYPE SYNTAX AcmeState MAX-ACCESS read-only STATUS current DESCRIPTION "x"
    ::= { acmeEntry 3 }
acmeTemp OBJECT-TYPE SYNTAX Tenths MAX-ACCESS read-only STATUS current DESCRIPTION "x"
    ::= { acmeEntry 4 }
acmeIll NOTIFICATION-TYPE OBJECTS { acmeState } STATUS current DESCRIPTION "x" ::= { acme 0 7 }
END
"""


def test_our_own_module_becomes_names(tmp_path: Path, shared: Path) -> None:
    pytest.importorskip("pysmi")
    folder = tmp_path / "mibs"
    folder.mkdir()
    (folder / "ACME-MIB.txt").write_text(ACME)
    (folder / "BROKEN-MIB.txt").write_text("BROKEN-MIB DEFINITIONS ::= BEGIN nonsense")
    table = tmp_path / "names.tsv"
    standards = shared / "specs/mibs"
    done = CliRunner().invoke(cli, ["mibs", str(folder), str(standards), "--output", str(table)])
    assert done.exit_code == 3, done.output
    assert "left out: BROKEN-MIB" in done.output
    names = load_names([str(table)])
    oid = "1.3.6.1.4.1.55555"
    assert names.label(f"{oid}.1.1.3.2.97.98") == "acmeState.2.ab"
    assert names.text(names.by_oid[f"{oid}.1.1.3"], 2) == "ill"
    assert names.text(names.by_oid[f"{oid}.1.1.4"], 415) == "41.5"
    assert names.by_oid[f"{oid}.0.7"].kind == "notification"


def test_the_shipped_table_is_what_the_modules_say(tmp_path: Path, shared: Path) -> None:
    """The facts we ship against the modules they were taken from, read again."""
    pytest.importorskip("pysmi")
    table = tmp_path / "names.tsv"
    CliRunner().invoke(cli, ["mibs", str(shared / "specs/mibs"), "--output", str(table)])
    lines = table.read_text("utf-8").splitlines()
    assert len(lines) > 800
    shipped = shipped_names().by_oid
    for line in lines:
        oid, name, module, kind = line.split("\t")[:4]
        if kind == "node":
            continue
        assert (shipped[oid].name, shipped[oid].kind) == (name, kind), (module, oid)


def test_trouble_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("pysmi")
    done = CliRunner().invoke(cli, ["mibs", str(tmp_path), "--output", str(tmp_path / "x")])
    assert "no MIB module could be read" in str(done.exception)
    assert CliRunner().invoke(cli, ["mibs", "/nowhere", "--output", "x"]).exit_code == 2
