"""Writing a data set out as the folder of images that `load` reads."""

from pathlib import Path

from PIL import Image

from unlearnkit.data.image_data import ImageData
from unlearnkit.errors import UserError


def write_folder(data: ImageData, folder: Path | str) -> Path:
    """Write `data` as FOLDER/{train,test}/<class>/NNNN.png and return FOLDER.

    Files that are there already are left alone.

    Raises
    ------
    UserError
        If the folder cannot be written to.
    """
    folder = Path(folder)
    sides = {
        "train": (data.train_images, data.train_labels),
        "test": (data.test_images, data.test_labels),
    }
    try:
        for side, (images, labels) in sides.items():
            for name in data.classes:
                (folder / side / name).mkdir(parents=True, exist_ok=True)
            pixels = images.permute(0, 2, 3, 1).cpu().numpy()
            for number, label in enumerate(labels.tolist()):
                path = folder / side / data.classes[label] / f"{number:05d}.png"
                if not path.exists():
                    Image.fromarray(pixels[number]).save(path)
    except OSError as error:
        raise UserError(f"cannot write images to {folder}: {error.strerror or error}") from None
    return folder
