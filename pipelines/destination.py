"""The folder that a run goes to: a path or a URL, checked before any work."""

from ppt.config import Config, ConfigError
from ppt.places import Place, Remote, place

OF_ONE_PROCESS = ("memory",)
"""Stores that another process does not see."""


def destination(output: str, config: Config) -> Place:
    """The place of a run. Raises PlaceError for a URL that names none, ConfigError where the config asks for
    what only a disk, or only one process, can have.
    """
    found = place(output)
    if isinstance(found, Remote):
        if config.embeddings_gib:
            raise ConfigError(
                f"embeddings_gib: embeddings are kept on disks alone; expected 0 with --output {found}"
                f" (got {config.embeddings_gib})"
            )
        if config.workers and found.protocol in OF_ONE_PROCESS:
            raise ConfigError(f"workers: no other process sees {found}; expected 0 (got {config.workers})")
    return found
