"""Artifacts on disk, complete or absent.

    manifest.json  config.yaml  shards/00000.jsonl|safetensors|done.json  failures.jsonl  index.json

Every file is written beside its place, flushed, and renamed into it. A shard exists once its `.done.json`
does, and only while the hashes in it hold; an artifact exists once `index.json` does. A crash at any moment
therefore loses at most the shards in flight, and the same command afterwards gives the same bytes: no file
holds a time or a host. Where a stage says which part of its inputs each shard is made of, other inputs cost
the shards that they touch.

In a store (`places`) a file is put under its name at once, and what is there is looked up by the names that
the plan and the index know: nothing is listed, but to start over, or for other inputs. There is no lock. Two
runs of one recipe write the same bytes under the same names, and neither removes what the other may have
written; of two recipes one stops, at its end at the latest, since a shard counts for its own recipe alone.

Writing: `begin` -> a Writer that knows its missing shards; each Shard may be written in any process;
`finish`. Or several take a share of the shards each, at the same time: `begin_share`; then one begins the
whole, and finishes.
Reading: `Artifact.open`.
"""

from ppt.store.reading import Artifact, ArtifactError, BusyArtifact, DamagedArtifact, StaleArtifact
from ppt.store.writing import PLAN, Writer, begin, begin_share, clear, refuse_unwritable

__all__ = [
    "PLAN",
    "Artifact",
    "ArtifactError",
    "BusyArtifact",
    "DamagedArtifact",
    "StaleArtifact",
    "Writer",
    "begin",
    "begin_share",
    "clear",
    "refuse_unwritable",
]
