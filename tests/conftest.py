"""Shape checks are on in tests alone: jaxtyping's annotations are verified on every call into the library."""

from jaxtyping import install_import_hook

_hook = install_import_hook("ppt", "beartype.beartype")
