"""Data sets by name, each loaded whole into memory as `ImageData`."""

from unlearnkit.data.image_data import ImageData
from unlearnkit.data.named import dataset, dataset_names, load
from unlearnkit.data.writing import write_folder

__all__ = ["ImageData", "dataset", "dataset_names", "load", "write_folder"]
