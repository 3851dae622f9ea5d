"""The doors to the outside: the only modules that import open_clip and segment_anything.

`clip.load_clip` and `sam.load_sam` return frozen models that speak our own nouns; `weights` knows where
checkpoints come from. Importing this package imports neither torch nor the models.
"""
