"""Data sets, each loaded whole into memory as `ImageData`, and their splits."""

from unlearnkit.data.images import ImageData
from unlearnkit.data.sources import DATASETS, dataset, load, write_folder
from unlearnkit.data.splits import Split, make_split

__all__ = ["DATASETS", "ImageData", "Split", "dataset", "load", "make_split", "write_folder"]
