"""Anything that can happen to an artifact, in any order: begun, killed, damaged, resumed, of other items or
settings, started over. It ends in the bytes of a run from nothing, and what can be read is never wrong.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fixtures.processes import snapshot
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ppt.config import fingerprint
from ppt.manifest import Manifest
from ppt.shard import Failure, shard_plan
from ppt.store import Artifact, ArtifactError, StaleArtifact, begin
from ppt.store.reading import stored_manifest

IN_MEMORY = Path("/dev/shm")
"""Where a flush costs nothing: here processes are killed, and no power is cut."""
STEPS = ("after_tmp", "after_fsync", "after_rename", "while_sweeping", "while_clearing")
DAMAGES = {
    "truncated": lambda data, at: data[: at % len(data)],
    "zero-filled": lambda data, at: bytes(len(data)),
    "flipped": lambda data, at: (
        data[: at % len(data)] + bytes([data[at % len(data)] ^ 1]) + data[at % len(data) + 1 :]
    ),
}


def manifest_of(items, setting):
    return Manifest("stub", 1, {"stub": {"setting": setting}}, {"items": fingerprint(items)}, {}, 0)


def rows_of(items, setting):
    """A row of every item, but for those whose content can be divided by three, which fail."""
    return [{"id": id, "made": f"{content} by {setting}"} for id, content in items.items() if content % 3]


def make(folder, items, setting, fresh=False):
    """The stub of a stage, two items a shard, which takes in other items and refuses other settings."""
    plan = shard_plan(list(items), 2)
    parts = {key: fingerprint([items[id] for id in own]) for key, own in plan.items()}
    with begin(folder, manifest_of(items, setting), plan, fresh, parts) as writer:
        for shard in writer.missing:
            own = {id: items[id] for id in shard.items}
            rows = rows_of(own, setting)
            failed = [id for id in own if id not in {row["id"] for row in rows}]
            shard.write(rows, None, [Failure("stub", id, "three", f"{id} is {own[id]}") for id in failed])
        writer.finish()


class Machine(RuleBasedStateMachine):
    """One folder, what it should be made of now, and every recipe that it was ever begun with."""

    @initialize()
    def start(self):
        self.home = Path(tempfile.mkdtemp(prefix="machine", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.folder, self.scratch = self.home / "stub", self.home / "scratch" / "stub"
        self.items, self.setting, self.recipes = {"a": 1, "b": 2, "c": 3}, 0, {}

    def teardown(self):
        shutil.rmtree(self.home, ignore_errors=True)

    def note(self):
        recipe = manifest_of(self.items, self.setting).fingerprint
        self.recipes[recipe] = rows_of(self.items, self.setting)

    def as_from_nothing(self):
        shutil.rmtree(self.scratch.parent, ignore_errors=True)
        make(self.scratch, self.items, self.setting)
        assert snapshot(self.folder) == snapshot(self.scratch)
        assert list(Artifact.open(self.folder).rows()) == rows_of(self.items, self.setting)

    @rule()
    def resume(self):
        """Where that is refused, nothing was touched; it is refused for other settings alone."""
        self.note()
        manifest = stored_manifest(self.folder)
        same = manifest is None or manifest.config == manifest_of(self.items, self.setting).config
        before = snapshot(self.folder) if self.folder.exists() else {}
        try:
            make(self.folder, self.items, self.setting)
        except StaleArtifact:
            assert snapshot(self.folder) == before
            assert manifest is None or not same
            return
        assert same
        self.as_from_nothing()

    @rule()
    def start_over(self):
        self.note()
        make(self.folder, self.items, self.setting, fresh=True)
        self.as_from_nothing()

    @rule(step=st.sampled_from(STEPS), count=st.integers(1, 9), fresh=st.booleans())
    def kill(self, step, count, fresh):
        self.note()
        child = os.fork()
        if child == 0:
            os.environ["PPT_FAILPOINT"] = f"{step}:{count}"
            try:
                make(self.folder, self.items, self.setting, fresh)
            except BaseException:  # a refusal
                os._exit(2)
            os._exit(0)
        os.waitpid(child, 0)

    @rule(which=st.integers(0, 99), how=st.sampled_from(sorted(DAMAGES)), at=st.integers(0, 10_000))
    def damage(self, which, how, at):
        """Of one file that is not empty; the manifest's alone is seldom, since then all must start over."""
        files = [path for path in sorted(self.folder.rglob("*.*")) if path.is_file() and path.stat().st_size]
        files = [path for path in files if path.name != "manifest.json" or which > 90]
        if files:
            path = files[which % len(files)]
            path.write_bytes(DAMAGES[how](path.read_bytes(), at))

    @rule(which=st.integers(0, 99), how=st.sampled_from(sorted(DAMAGES)), at=st.integers(0, 10_000))
    def start_over_and_damage_and_resume(self, which, how, at):
        self.start_over()
        self.damage(which, how, at)
        self.what_is_read_is_right()
        self.resume()

    @rule(what=st.sampled_from(["add", "remove", "change", "configure"]), at=st.integers(0, 9))
    def alter(self, what, at):
        chosen = list(self.items)[at % len(self.items)] if self.items else None
        match what:
            case "add":
                self.items = {**self.items, f"item{len(self.items)}-{at}": at}
            case "remove":
                self.items = {id: content for id, content in self.items.items() if id != chosen}
            case "change" if chosen:
                self.items = {**self.items, chosen: at}
            case "configure":
                self.setting = at % 3

    @invariant()
    def what_is_read_is_right(self):
        try:
            artifact = Artifact.open(self.folder)
            rows = list(artifact.rows())
            items = {item for key in artifact.keys for item in artifact.items(key)}
            failed = {failure.id for failure in artifact.failures()}
        except ArtifactError:
            return
        assert rows == self.recipes[artifact.manifest.fingerprint]
        assert {row["id"] for row in rows} == items - failed


def run_machine(examples, steps):
    how = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(Machine, settings=how)


def test_whatever_happens_to_an_artifact_it_ends_in_the_bytes_of_a_run_from_nothing():
    run_machine(25, 12)


@pytest.mark.slow
def test_whatever_happens_to_an_artifact_for_long():
    run_machine(int(os.environ.get("PPT_TESTS_MACHINE", 2000)), 40)
