"""The checkpoints that are known by name: what they are, where they are published, and by which sha256.

A CLIP is called `<clip.model>.<clip.weights>`, as its file is: "ViT-B-16.openai". A SAM is called as in
`sam.model`: "vit_b". Sources and colours are those of open_clip's own table. OpenAI's addresses contain the
sha256; those of SAM and MobileSAM are of the files as downloaded. The files of LAION and DataComp are named
at one revision of their repository each; where no sha256 is known, Hugging Face tells it on the way.

SigLIP is not among them: its image tower pools by an attention of its own, which has no dense path here.
"""

from dataclasses import dataclass

from ppt.backbones.weights import ENVIRONMENT_FOLDER, Checkpoint, WeightsError

HUB = "https://huggingface.co"
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_MOBILE_SAM = "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM"
_OF_OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_OF_HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_OF_SAM = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Published:
    """A checkpoint and what a person chooses by.

    architecture: open_clip's or segment_anything's name of it. side: pixels of a side of the image it was
    trained on. mean, deviation: what a pixel's red, green and blue are normalised by, in [0, 1] for CLIP and
    in [0, 255] for SAM. licence: SPDX. tag: what `clip.weights` is to say; "" for SAM.
    """

    checkpoint: Checkpoint
    architecture: str
    side: int
    mean: Colour
    deviation: Colour
    licence: str
    tag: str = ""


def named(name: str) -> Published:
    """The checkpoint of that name; a CLIP's "-quickgelu" and slash may be there or not.

    Raises WeightsError listing the names.
    """
    model, dot, tag = name.replace("/", "-").rpartition(".")
    found = PUBLISHED.get(model.removesuffix("-quickgelu") + dot + tag)
    if found is None:
        raise WeightsError(f"no weights are known as {name!r}: use one of {', '.join(PUBLISHED)}")
    return found


def official_clip(model: str, tag: str) -> Checkpoint | None:
    """The published checkpoint of an open_clip architecture and one of its tags; None where we list none."""
    found = PUBLISHED.get(f"{model.removesuffix('-quickgelu')}.{tag}")
    return found.checkpoint if found else None


def official_sam(model: str) -> Checkpoint:
    """The published checkpoint of SAM "vit_b", "vit_l", "vit_h" or "mobile_sam".

    Raises WeightsError for another name.
    """
    known = {name: one.checkpoint for name, one in PUBLISHED.items() if not one.tag}
    if model not in known:
        raise WeightsError(f"unknown SAM model {model!r}: use 'embedded' or one of {sorted(known)}")
    return known[model]


def by_sha256(sha256: str) -> Published | None:
    """The published checkpoint whose file has this sha256, whatever the file is called."""
    return next((one for one in PUBLISHED.values() if one.checkpoint.sha256 == sha256), None)


def _checkpoint(
    name: str, kind: str, file: str, url: str, size: int | None, sha256: str | None, hub: str = ""
) -> Checkpoint:
    megabytes = f" ({size / 1e6:.0f} MB)" if size else ""
    remedy = (
        f"fetch it{megabytes} with `ppt weights fetch {name}`; or get {url} on another machine, and name the "
        f"file in {kind}.weights or keep it as {file} in the folder that {ENVIRONMENT_FOLDER} names"
    )
    stem = file.rpartition(".")[0]
    also = tuple(f"{stem}{suffix}" for suffix in (".safetensors", ".bin", ".pt", ".pth")) if hub else ()
    others = tuple(other for other in also if other != file)
    return Checkpoint(f"{kind} {name}", file, remedy, sha256, size, others, url, hub)


def _openai(model: str, side: int, size: int, sha256: str, hub: str) -> Published:
    # OpenAI's networks have the quick GELU; open_clip has an architecture of its own for it.
    name, original = f"{model}.openai", model.replace("-336", "-336px")
    url = f"{_OPENAI}/{sha256}/{original}.pt"
    checkpoint = _checkpoint(name, "clip", f"{name}.pt", url, size, sha256, hub)
    return Published(checkpoint, f"{model}-quickgelu", side, *_OF_OPENAI, "MIT", "openai")


def _laion(
    model: str,
    tag: str,
    repository: str,
    revision: str,
    colours: tuple[Colour, Colour] = _OF_OPENAI,
    size: int | None = None,
    sha256: str | None = None,
) -> Published:
    name, hub = f"{model}.{tag}", f"laion/{repository}"
    url = f"{HUB}/{hub}/resolve/{revision}/open_clip_pytorch_model.bin"
    checkpoint = _checkpoint(name, "clip", f"{name}.bin", url, size, sha256, hub)
    return Published(checkpoint, model, 224, *colours, "MIT", tag)


def _sam(model: str, folder: str, file: str, size: int, sha256: str) -> Published:
    checkpoint = _checkpoint(model, "sam", file, f"{folder}/{file}", size, sha256)
    return Published(checkpoint, model, 1024, *_OF_SAM, "Apache-2.0")


_EVERY = (
    _openai(
        "RN50",
        224,
        255827503,
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "timm/resnet50_clip.openai",
    ),
    _openai(
        "RN101",
        224,
        291791292,
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "timm/resnet101_clip.openai",
    ),
    _openai(
        "ViT-B-32",
        224,
        353976522,
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "timm/vit_base_patch32_clip_224.openai",
    ),
    _openai(
        "ViT-B-16",
        224,
        350837078,
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "timm/vit_base_patch16_clip_224.openai",
    ),
    _openai(
        "ViT-L-14",
        224,
        932768134,
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "timm/vit_large_patch14_clip_224.openai",
    ),
    _openai(
        "ViT-L-14-336",
        336,
        934088680,
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "timm/vit_large_patch14_clip_336.openai",
    ),
    _laion(
        "ViT-B-16",
        "laion2b_s34b_b88k",
        "CLIP-ViT-B-16-laion2B-s34B-b88K",
        "7288da5a0d6f0b51c4a2b27c624837a9236d0112",
    ),
    _laion(
        "ViT-B-16",
        "datacomp_xl_s13b_b90k",
        "CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        "d110532e8d4ff91c574ee60a342323f28468b287",
    ),
    _laion(
        "ViT-L-14",
        "laion2b_s32b_b82k",
        "CLIP-ViT-L-14-laion2B-s32B-b82K",
        "1627032197142fbe2a7cfec626f4ced3ae60d07a",
        _OF_HALVES,
        1710631365,
        "5ddb47339f44e4fd9cace3d3960d38af1b51a25857440cfae90afc44706d7e2b",
    ),
    _laion(
        "ViT-L-14",
        "datacomp_xl_s13b_b90k",
        "CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        "84c9828e63dc9a9351d1fe637c346d4c1c4db341",
    ),
    _sam(
        "vit_b",
        _SAM,
        "sam_vit_b_01ec64.pth",
        375042383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "vit_l",
        _SAM,
        "sam_vit_l_0b3195.pth",
        1249524607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "vit_h",
        _SAM,
        "sam_vit_h_4b8939.pth",
        2564550879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _sam(
        "mobile_sam",
        f"{_MOBILE_SAM}/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights",
        "mobile_sam.pt",
        40728226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    ),
)
PUBLISHED = {one.checkpoint.name.partition(" ")[2]: one for one in _EVERY}
"""By the name that `ppt weights` takes, in the order in which they are listed."""
