"""Pictures in: folders, decoding, transforms and batches.

    folder = ImageFolder.open("flowers")
    preprocessing = Preprocessing.named("imagenet", 224)
    loader = Loader(folder.train, preprocessing.training(), batch_size=32, shuffle=True)
    for images, labels, indices in loader.epoch(0): ...

Pillow is imported when the first picture is decoded or resized, not before.
"""

from nnlite.data.cache import PictureCache
from nnlite.data.check import Finding, check_data
from nnlite.data.colour import ColorJitter
from nnlite.data.decode import decode
from nnlite.data.folder import ImageFolder, Sample
from nnlite.data.loader import Batch, Loader, Skipped
from nnlite.data.preprocess import FAMILIES, Preprocessing
from nnlite.data.random import generator
from nnlite.data.sheet import contact_sheet, save_picture
from nnlite.data.transforms import (
    CenterCrop,
    Compose,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Resize,
    ResizeToCover,
    ToFloat,
    Transform,
    center_crop,
    resize,
)

__all__ = [
    "FAMILIES",
    "Batch",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "Finding",
    "HorizontalFlip",
    "ImageFolder",
    "Loader",
    "Normalize",
    "PictureCache",
    "Preprocessing",
    "RandomResizedCrop",
    "Resize",
    "ResizeToCover",
    "Sample",
    "Skipped",
    "ToFloat",
    "Transform",
    "center_crop",
    "check_data",
    "contact_sheet",
    "decode",
    "generator",
    "resize",
    "save_picture",
]
