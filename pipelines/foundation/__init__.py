"""How the embedded default's weights were made: a small CLIP and a small SAM, trained on composed cut-out
scenes.

    python -m pipelines.foundation clip  --minutes 58
    python -m pipelines.foundation sam   --minutes 86 --rate 1e-3
    python -m pipelines.foundation pack
    python -m pipelines.foundation judge

CLIP sees image-text pairs alone. SAM sees class-agnostic masks of two thirds of the cut-outs; the third it
never saw judges it. Checkpoints lie in outputs/foundation unless --folder says otherwise.
The committed SAM's prompt encoder and mask decoder began (--start) from a training with a plain ViT as the
encoder, whose code is in the history; the image encoder began from nothing.
"""
