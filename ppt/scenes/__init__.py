"""Photo cut-outs composed into scenes with sentences and exact truth: demo data, mosaics and tests.

`cutouts` finds and names the photographed objects, `compose` puts them into scenes with known masks,
`sentences` says which object is meant.
"""
