"""How the embedded default's weights were made: a small CLIP and a small SAM, trained on composed cut-out
scenes.

    python -m pipelines.foundation clip  --minutes 58
    python -m pipelines.foundation sam   --minutes 92 --side 192 --rate 1e-3 --folder outputs/small
    python -m pipelines.foundation sam   --minutes 83 --rate 6e-4 --start outputs/small/sam.pt
    python -m pipelines.foundation pack
    python -m pipelines.foundation judge

CLIP sees image-text pairs alone. SAM sees class-agnostic masks of two thirds of the cut-outs; the third it
never saw judges it. Checkpoints lie in outputs/foundation unless --folder says otherwise.
The committed SAM had the second of its trainings in three sittings (14 minutes at 192 px, 24 and 45 at
256 px); the outlines were learnt in the last one alone.
"""
