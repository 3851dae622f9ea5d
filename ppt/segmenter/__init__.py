"""The segmenter: an image and a sentence -> the mask of what it means, learned between two frozen towers.

The walk: `adapters` speak between CLIP's towers, a neck (`necks`) brings three taps and the sentence to one
grid, `fusion` lets cells and words look at each other, a decoder (`decoders`) draws the mask, `model` is all
of it. `losses` teach it. Which part stands where is a `model.Design`.
"""
