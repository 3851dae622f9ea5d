"""`ppt`: from an image and a sentence to a mask, with point prompts as the only bridge."""

__version__ = "0.1.0"
