"""What teaches the segmenter, each a number to be weighed and added.

`region`: the mask, pixel by pixel and as a whole. `pairwise`, `contrast`: TALENT's two losses, corrected and
as released. `grounding`, `alignment`: MagNet's. All but the mask's losses by the pixel have one value a
sentence, so that each can be weighed by how far its pseudo-label is believed.
"""
