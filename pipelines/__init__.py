"""The corridor: one thin stage a file, the recipe that walks them in order, and the command line."""
