"""Reading of image files, some of which may be broken."""

import io
import os

import tensorflow_datasets as tfds
from etils import epath

# Maximum number of files listed in an error.
NAMED = 10


class Local:
    """Mixin of builders that can read a local archive or folder.

    Args:
        source: Path of the archive, extracted or not, or None to download it.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    def __init__(
        self, *, source: str | os.PathLike[str] | None = None, **kwargs
    ):
        super().__init__(**kwargs)
        self.source = source


class ImageConfig(tfds.core.BuilderConfig):
    """Treatment of images that are missing or cannot be decoded.

    Args:
        skip: Boolean, whether to leave them out instead of refusing them.
        **kwargs: Arguments of `tfds.core.BuilderConfig`.
    """

    def __init__(self, *, skip, **kwargs):
        super().__init__(**kwargs)
        self.skip = skip


CONFIGS = [
    ImageConfig(
        name="complete",
        description="Unreadable images are refused.",
        skip=False,
    ),
    ImageConfig(
        name="readable",
        description="Unreadable images are left out.",
        skip=True,
    ),
]


def make_info(builder, description, homepage, size, label):
    """Describes the data set of a builder.

    Args:
        builder: `tfds.core.DatasetBuilder`.
        description, homepage: Strings.
        size: Integer, height and width of its RGB images.
        label: `tfds.features.ClassLabel`.

    Returns:
        `tfds.core.DatasetInfo`.
    """
    image = tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        features=tfds.features.FeaturesDict({"image": image, "label": label}),
        supervised_keys=("image", "label"),
        metadata=tfds.core.MetadataDict(),
    )


class Reader:
    """Decodes image files and records those that it cannot decode.

    Args:
        config: `ImageConfig`.
        name: String, the name of the data set.
    """

    def __init__(self, config, name):
        self.config = config
        self.name = name
        self.broken: dict = {}

    def read(self, path, size=None, decode=None):
        """Returns the bytes of a JPEG file in RGB.

        Args:
            path: `epath.Path`.
            size: Tuple of height and width to resize to, or None to leave the
                file as it is.
            decode: Function of the bytes that raises if they cannot be decoded
                later. Decoders tolerate different defects.

        Returns:
            Bytes, or None if it cannot be decoded.
        """
        pillow = tfds.core.lazy_imports.PIL_Image
        try:
            data = path.read_bytes()
            image = pillow.open(io.BytesIO(data)).convert("RGB")
            if decode is not None:
                decode(data)
        except Exception as error:  # The decoders raise errors of many types.
            # Pillow's errors end with the address of the stream.
            self.broken[path.name] = str(error).split(" <")[0]
            return None
        if size is None:
            return data
        height, width = size
        image = image.resize((width, height), pillow.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    def finish(self):
        """Ends the reading of a split.

        Returns:
            Dict from the names of the files that were left out to the reasons.

        Raises:
            ValueError: If files could not be read and the config refuses them.
        """
        if self.broken and not self.config.skip:
            names = list(self.broken)
            more = len(names) - NAMED
            raise ValueError(
                f"Images of {self.name} are missing or cannot be decoded. "
                "Expected a complete archive: download it again, or leave the "
                f"images out with '{self.name}/readable'. Received "
                f"{len(names)} broken images: {', '.join(names[:NAMED])}"
                + (f" and {more} more" if more > 0 else "")
            )
        return self.broken


def extract(source, url, dl_manager):
    """Returns the extracted folder of an archive.

    Args:
        source: Path of the archive, extracted or not; or None.
        url: String, the address to download from if the source is None.
        dl_manager: `tfds.download.DownloadManager`.

    Returns:
        `epath.Path`.
    """
    if source is None:
        return epath.Path(dl_manager.download_and_extract(url))
    source = epath.Path(source)
    return source if source.is_dir() else dl_manager.extract(source)


def find_root(folder, child, name):
    """Finds the folder of an extracted archive that holds a given child.

    Args:
        folder: `epath.Path` of this folder or of its parent.
        child: String, name of a file or folder that the folder must hold.
        name: String, the name of the data set.

    Returns:
        `epath.Path`.

    Raises:
        ValueError: If neither folder holds it.
    """
    inner = (
        [x for x in folder.iterdir() if x.is_dir()] if folder.exists() else []
    )
    for candidate in (folder, *inner):
        if (candidate / child).exists():
            return candidate
    raise ValueError(
        f"The folder is not that of {name}. "
        f"Expected a folder that holds {child}. "
        f"Received: {folder}, which holds "
        f"{sorted(x.name for x in inner) or 'no folders'}"
    )
