"""Every story of tests/scenario/stories comes out as it says; the runner fails where one does not."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from telemetry.errors import ConfigError
from tocsin.cli.scenario import scenario
from tocsin.stories.play import play
from tocsin.stories.story import Step, Story, read_story

STORIES = sorted((Path(__file__).parent / "stories").glob("*.yaml"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    assert play(read_story(path)).failures == []


def test_there_are_at_least_forty() -> None:
    assert len(STORIES) >= 40


def test_a_story_that_expects_what_is_not_so_fails() -> None:
    """Each check can fail: the story of a lone alarm, held against what is not so."""
    wrong = {
        "incidents": 2, "open": 0, "notices": {"least": 2}, "alarms_up": 0, "reopened": 1,
        "title_changes": 1, "incident": [{"cause": "linkDown *"}], "alarm": [{"kind": "linkDown"}],
    }  # fmt: skip
    story = Story("alone", [Step(0, alarms=["fan r1"])], expect=wrong)
    assert len(play(story).failures) == len(wrong)
    right = {"incidents": 1, "open": 1, "notices": 1, "incident": [{"cause": "fan r1"}]}
    assert play(msgspec.structs.replace(story, expect=right)).failures == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("story: x\nsteps:\n- at: 0s\n- at: 1s\n  alarm: [a b]\n", ":4: .* unknown field `alarm`"),
        (
            "story: x\nsteps:\n- at: 0s\n- at: 1s\n  alarms: [down]\n",
            ":4: alarm 'down': write KIND ENTITY",
        ),
        ("story: x\nsteps:\n- at: soon\n", ":3: 'soon' is no time"),
        ("story: x\nsteps:\n- at: 0s\n- {at: 1s, faults: [cut a-b]}\n", ":4: .* no link 'a-b'"),
        ("story: x\nsteps:\n- {at: 1s, alarms: [{kind: a}]}\n", ":3: 'entity' is missing"),
        (
            "story: x\nsteps:\n- {at: 1s, operator: [{shelf: {}}]}\n",
            ":3: operator 'shelf' is not known",
        ),
        (
            "story: x\nsteps:\n- {at: 1s, operator: [{close: {incident: a}}]}\n",
            ":3: no incident was told",
        ),
        ("story: x\nsettings: {wait: 1}\nsteps: []\n", ": settings: .* unknown field `wait`"),
        ("story: x\nsteps: []\nexpect: {people: 3}\n", ": expect: 'people' is not known"),
        ("story: [\n", ":2: expected"),
        ("steps: []\n", ":1: .* missing required field `story`"),
    ],
)
def test_a_mistake_in_a_story_is_one_sentence_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path}{said}"):
        CliRunner().invoke(scenario, ["run", str(path)], catch_exceptions=False)


def test_the_command_says_which_failed(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("story: nothing\nsteps: []\nexpect: {incidents: 0}\n")
    (tmp_path / "wrong.yaml").write_text("story: nothing\nsteps: []\nexpect: {incidents: 1}\n")
    said = CliRunner().invoke(scenario, ["run", str(tmp_path)])
    assert said.exit_code == 3
    assert "2 stories, 1 failed" in said.output
    assert "incidents told: 0, expected 1" in said.output
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="none: no story"):
        CliRunner().invoke(
            scenario, ["run", str(tmp_path), str(tmp_path / "none")], catch_exceptions=False
        )
    only = CliRunner().invoke(scenario, ["run", str(tmp_path / "good.yaml")])
    assert only.exit_code == 0
