"""The write side: what is left to do of an artifact, and closing it."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout

from ppt import attempts, locks
from ppt.durable import ensure, failpoint, identity, is_intact, json_lines, json_object, sealed
from ppt.manifest import Manifest, difference
from ppt.places import Place, Remote, each
from ppt.shard import Shard
from ppt.store.reading import Artifact, ArtifactError, BusyArtifact, StaleArtifact, stored_manifest

PLAN = "plan.json"
"""Of a stage that remembers its plan; it goes when the artifact is started over."""
_OWN_NAMES = ("failures.jsonl", "preview.png", PLAN, "config.yaml", "manifest.json")
_BEFORE_MANIFEST = {locks.NAME, "manifest.json.tmp"}
PATIENCE = 60.0  # seconds that whoever begins a share waits for others that begin theirs
_KEY = re.compile(r"\d{5,}")


class Writer:
    """The write side of one artifact, holding its lock where there is one. Use it in a `with` block."""

    def __init__(self, folder: Place, manifest: Manifest, shards: Sequence[Shard], lock: ExitStack) -> None:
        self.folder = folder
        self.manifest = manifest
        self.shards = tuple(shards)
        whole = each(Shard.is_whole, shards, folder)
        self.missing = tuple(shard for shard, there in zip(shards, whole, strict=True) if not there)
        self._lock = lock

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def complete(self) -> bool:
        """Whether the artifact is there and whole, so that there is nothing to do."""
        return not self.missing and _is_closed(self)

    def finish(self) -> "Artifact":
        """Gather the failures, then write the index: the artifact exists. ArtifactError if shards lack."""
        markers = _markers(self.shards, self.folder)
        absent = [shard.key for shard in self.shards if shard.key not in markers]
        if absent:
            raise ArtifactError(
                f"{self.folder}: cannot finish, {len(absent)} shards lack: {', '.join(absent[:5])}"
            )
        for name, data in _closing(self.manifest, markers).items():
            ensure(self.folder / name, data)
        if not isinstance(self.folder, Remote):
            for leftover in self.folder.glob("shards/*.tmp"):  # of workers that died
                leftover.unlink(missing_ok=True)
        attempts.forget(self.folder)
        return Artifact.open(self.folder)


def begin(
    folder: Place,
    manifest: Manifest,
    plan: Mapping[str, Sequence[str]],
    fresh: bool = False,
    parts: Mapping[str, str] | None = None,
) -> Writer:
    """Take the folder's lock, on a disk, and find out what is left to do.

    plan: shard key -> its items, in order. Shards of the same recipe that are whole and planned alike are
    kept; others are removed. parts: shard key -> fingerprint of the part of the inputs that it is made of;
    where these are given, other inputs are taken in, and only what depends on them is made anew. `fresh`
    starts over. Raises BusyArtifact, StaleArtifact, or ArtifactError when the folder is not empty and no
    artifact of ours.
    """
    for key in plan:
        assert _KEY.fullmatch(key), f"a shard's key is five digits or more, got {key!r}"
    lock = _locked(folder)
    try:
        if not fresh:
            _take_in(folder, manifest, parts)
        if not isinstance(folder, Remote):
            for leftover in (*folder.glob("*.tmp"), *folder.glob("shards/*.tmp")):
                leftover.unlink()
        if fresh:
            _clear(folder)
        _leave_recipe(folder, manifest)
        writer = Writer(folder, manifest, _shards(folder, manifest, plan, parts), lock)
        if isinstance(folder, Remote):
            _sweep_named(writer, folder)
        else:
            _sweep(writer, folder)
    except BaseException:
        lock.close()
        raise
    return writer


def refuse_unwritable(folder: Place) -> None:
    """Raises ArtifactError where `folder`, or the one in which it would be made, is known not to be writable.
    Writes nothing, and asks no store.
    """
    if isinstance(folder, Remote):
        return
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"{there} is read-only, or another user's")


def _unwritable(folder: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{folder}: cannot be written to ({reason}); make it writable, or choose another folder with --output"
    )


def begin_share(
    folder: Place,
    manifest: Manifest,
    plan: Mapping[str, Sequence[str]],
    share: tuple[int, int],
    parts: Mapping[str, str] | None = None,
) -> Writer:
    """Find out what is left to do of a share of the plan: with (3, 16) of every 16th shard from number 3,
    counted from 0. The others may be written at the same time, from any machine, and so may the same.

    Nothing is swept and nothing is finished: that is for `begin` afterwards. Raises as `begin`, BusyArtifact
    only while another run begins or writes the whole.
    """
    number, count = share
    with _locked(folder, begins_share=True):
        _take_in(folder, manifest, parts)
        _leave_recipe(folder, manifest)
        own = ExitStack()
        if not isinstance(folder, Remote):
            own.callback(locks.share(folder).release)
    mine = {key: plan[key] for key in sorted(plan, key=int)[number::count]}
    writer = Writer(folder, manifest, _shards(folder, manifest, mine, parts), own)
    if writer.missing:
        (folder / "index.json").unlink(missing_ok=True)  # what it promises is about to change
    return writer


def clear(folder: Place) -> None:
    """Remove the artifact, if there is one. Raises BusyArtifact, or ArtifactError where it is not ours."""
    with _locked(folder):
        _clear(folder)


def _shards(
    folder: Place, manifest: Manifest, plan: Mapping[str, Sequence[str]], parts: Mapping[str, str] | None
) -> list[Shard]:
    def recipe(key: str) -> str:
        return manifest.fingerprint if parts is None else manifest.recipe(parts[key])

    return [Shard(folder, recipe(key), key, tuple(items)) for key, items in plan.items()]


def _locked(folder: Place, begins_share: bool = False) -> ExitStack:
    """Holds the lock of the whole artifact until it is closed; in a store there is none. Whoever begins a
    share waits until others have begun theirs.
    """
    held = ExitStack()
    if isinstance(folder, Remote):
        return held
    _refuse_foreign(folder)
    try:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        lock = locks.whole(folder, PATIENCE if begins_share else 0.0)
    except Timeout:
        said = "another run is writing here; wait for it, or choose another folder"
        raise BusyArtifact(f"{folder}: {said}") from None
    except OSError as error:
        raise _unwritable(folder, str(error.strerror or error)) from None
    held.callback(lock.release)
    sharers = [] if begins_share else locks.sharers(folder)
    if sharers:
        held.close()
        raise BusyArtifact(f"{folder}: shares of it are being written ({sharers[0]}); wait for them")
    return held


def _leave_recipe(folder: Place, manifest: Manifest) -> None:
    ensure(folder / "manifest.json", json_lines([manifest.to_json()]))
    ensure(folder / "config.yaml", yaml.safe_dump(manifest.config, allow_unicode=True).encode())


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file, expected a folder")
    if not folder.exists() or (folder / "manifest.json").exists():
        return
    shards = folder / "shards"
    ours = {"shards"} if shards.is_dir() and not any(shards.iterdir()) else set[str]()
    foreign = sorted({entry.name for entry in folder.iterdir()} - _BEFORE_MANIFEST - ours)
    if foreign and not (folder / "manifest.json").exists():  # which another may have begun in the meantime
        raise ArtifactError(
            f"{folder}: not empty and no artifact (holds {foreign[0]!r}); choose another folder"
        )


def _take_in(folder: Place, manifest: Manifest, parts: Mapping[str, str] | None) -> None:
    """Raises StaleArtifact where the folder's recipe is another; other inputs alone are taken in where parts
    of them are known, and what all shards were joined to goes.
    """
    if not (folder / "manifest.json").exists():
        return
    remedy = "pass --fresh to start over, or choose another folder"
    stored = stored_manifest(folder)
    if stored is None:
        raise StaleArtifact(f"{folder}: manifest.json is damaged, or of another version of ppt; {remedy}")
    changes = difference(stored if parts is None else replace(stored, inputs=manifest.inputs), manifest)
    if changes:
        raise StaleArtifact(
            "\n  ".join([f"{folder}: made by another recipe; {remedy}. What differs:", *changes])
        )
    if stored != manifest:
        _disjoin(folder)


def _clear(folder: Place) -> None:
    """Remove the artifact and nothing else; index first and manifest last, so no step leaves a lie."""
    (folder / "index.json").unlink(missing_ok=True)
    failpoint("while_clearing")
    _disjoin(folder)
    attempts.forget(folder)
    for path in sorted((folder / "shards").iterdir()):
        path.unlink()
    for name in _OWN_NAMES:
        (folder / name).unlink(missing_ok=True)


def _disjoin(folder: Place) -> None:
    """Remove what was made of all shards together, the index first; that of a store stays, to sweep by."""
    if not isinstance(folder, Remote):
        (folder / "index.json").unlink(missing_ok=True)
    joined = sorted(path for path in folder.glob("*.json*") if path.name not in (*_OWN_NAMES, "index.json"))
    for path in (*joined, folder / "preview.png"):
        path.unlink(missing_ok=True)


def _sweep(writer: Writer, folder: Path) -> None:
    """Leave only what this plan keeps. The index goes first: what it promises is about to change."""
    kept = set[str]()
    for shard in set(writer.shards) - set(writer.missing):
        kept |= {f"{shard.key}.done.json", *shard.files()}
    unplanned = [path for path in sorted((folder / "shards").iterdir()) if path.name not in kept]
    if writer.missing or unplanned or not _is_closed(writer):
        (folder / "index.json").unlink(missing_ok=True)
        failpoint("while_sweeping")
    for path in unplanned:
        path.unlink()


def _sweep_named(writer: Writer, folder: Remote) -> None:
    """Remove what an index of another plan names. That of this plan stays, and so do its shards: another run
    may just have written them, with the bytes that this one would write.
    """
    path = folder / "index.json"
    if not path.is_file():
        return
    index = json_object(path)
    known: dict[str, Any] = index["shards"] if index else {}
    plan = {shard.key: list(shard.items) for shard in writer.shards}
    same = index is not None and index["manifest"] == writer.manifest.fingerprint
    if same and plan == {key: shard["items"] for key, shard in known.items()}:
        return
    path.unlink(missing_ok=True)
    failpoint("while_sweeping")
    for key in sorted(known.keys() - plan.keys()):
        for name in (f"{key}.done.json", *known[key]["files"]):
            (folder / "shards" / name).unlink(missing_ok=True)


def _is_closed(writer: Writer) -> bool:
    closing = _closing(writer.manifest, _markers(writer.shards, writer.folder))
    return all(is_intact(writer.folder / name, identity(data)) for name, data in closing.items())


def _markers(shards: Sequence[Shard], folder: Place) -> dict[str, dict[str, Any]]:
    """Key -> marker of the shards that are done, in their order."""
    found = each(Shard.done, shards, folder)
    return {shard.key: done for shard, done in zip(shards, found, strict=True) if done is not None}


def _closing(manifest: Manifest, markers: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
    """The files that close an artifact, in the order of writing; a pure function of the shards' markers."""
    failures = [failure for done in markers.values() for failure in done["failures"]]
    failed = json_lines(failures)
    index = {
        "stage": manifest.stage,
        "manifest": manifest.fingerprint,
        "shards": {key: {"items": done["items"], "files": done["files"]} for key, done in markers.items()},
        "failures": identity(failed),
        "items": sum(len(done["items"]) for done in markers.values()),
        "failed": len(failures),
    }
    return {"failures.jsonl": failed, "index.json": sealed(index)}
