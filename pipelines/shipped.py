"""The configs that come with the package, by name."""

from pathlib import Path

from ppt.config import ConfigError

FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")
"""Where they lie in an installed package, and in a clone."""


def names() -> list[str]:
    """Every one's, sorted."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})


def config_path(name: str) -> Path:
    """The file named, or the config shipped under that name ("demo", "custom", ...). Raises ConfigError."""
    path = Path(name)
    if path.is_file() or path.suffix:
        return path
    for folder in FOLDERS:
        if (folder / f"{name}.yaml").exists():
            return folder / f"{name}.yaml"
    raise ConfigError(
        f"{name}: no such file, and no shipped config of that name; there are {', '.join(names())}"
    )
