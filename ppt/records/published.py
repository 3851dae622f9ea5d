"""How large data sets are known to be, by split: what `ppt data check` compares with."""

SIZES: dict[str, dict[str, tuple[int, int]]] = {
    "refcoco (unc)": {
        "train": (42404, 16994),
        "val": (3811, 1500),
        "testA": (1975, 750),
        "testB": (1810, 750),
    },
    "refcoco (google)": {"train": (40000, 19213), "val": (5000, 4559), "test": (5000, 4527)},
    "refcoco+ (unc)": {
        "train": (42278, 16992),
        "val": (3805, 1500),
        "testA": (1975, 750),
        "testB": (1798, 750),
    },
    "refcocog (google)": {"train": (44822, 24698), "val": (5000, 4650)},
    "refcocog (umd)": {"train": (42226, 21899), "val": (2573, 1300), "test": (5023, 2600)},
    "phrasecut": {"train": (308893, 71354), "val": (20350, 2971), "test": (18980, 2937)},
}
"""Name -> split -> (refs, images), as TensorFlow Datasets' catalogue counts REFER's sets, and as
VGPhraseCut's own page counts its phrases, each of which is a ref.
"""
