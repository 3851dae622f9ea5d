"""What comes in from outside, checked at the door: the user's pairs, their images, the truth to score with.

`pairs` and `truth` read files row by row and refuse bad rows with their line number; `images` is the gate
that every image passes, and the one place where a file becomes pixels.
"""
