r"""How the embedded default's weights were made: a small CLIP and a small SAM, trained on composed cut-out
scenes.

    python -m pipelines.foundation clip  --minutes 58 --folder outputs/foundation
    python -m pipelines.foundation sam   --minutes 92 --side 192 --rate 1e-3 --folder outputs/small
    python -m pipelines.foundation sam   --minutes 34 --side 192 --floor 0.6 --folder outputs/more \
                                         --start outputs/small/sam.pt
    python -m pipelines.foundation sam   --minutes 48 --side 256 --folder outputs/foundation \
                                         --start outputs/more/sam.pt
    python -m pipelines.foundation pack  --folder outputs/foundation
    python -m pipelines.foundation judge

CLIP sees image-text pairs alone. SAM sees class-agnostic masks of two thirds of the cut-outs; the third it
never saw judges it. Most of SAM's training is at a smaller side, where a step costs half.
"""
