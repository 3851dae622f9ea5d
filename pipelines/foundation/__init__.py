"""How the embedded default's weights were made: a small CLIP and a small SAM, trained on composed cut-out
scenes.

    python -m pipelines.foundation clip  --minutes 100 --folder outputs/foundation
    python -m pipelines.foundation sam   --minutes 100 --folder outputs/foundation
    python -m pipelines.foundation judge --folder outputs/foundation
    python -m pipelines.foundation pack  --folder outputs/foundation

CLIP sees image-text pairs alone. SAM sees class-agnostic masks of two thirds of the cut-outs; the third it
never saw judges it. Each training uses one thread, so that the two can share a two-core machine.
"""
