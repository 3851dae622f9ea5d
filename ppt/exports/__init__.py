"""Labels as other tools read them, one file a format: a writer is given pictures with their masks, one by
one, and an empty folder.

Masks stay run lengths (`ppt.rle`) and are decoded one at a time; what is kept while writing is a few hundred
bytes an image. The same pictures give the same bytes: there is no time, no host and no chance in an export.
"""
