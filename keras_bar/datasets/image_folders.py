"""Reading picture files that may be broken."""

import io
import os

import tensorflow_datasets as tfds
from etils import epath

# So many are named in an error.
NAMED = 10


class Local:
    """A builder that may read what is there already.

    Args:
        source: Path of an archive, extracted or not, or None to download it.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    def __init__(
        self, *, source: str | os.PathLike[str] | None = None, **kwargs
    ):
        super().__init__(**kwargs)
        self.source = source


class PictureConfig(tfds.core.BuilderConfig):
    """What is done with pictures that are missing or cannot be decoded.

    Args:
        skip: Boolean, whether they are left out; otherwise they are refused.
        **kwargs: Arguments of `tfds.core.BuilderConfig`.
    """

    def __init__(self, *, skip, **kwargs):
        super().__init__(**kwargs)
        self.skip = skip


CONFIGS = [
    PictureConfig(
        name="complete",
        description="Pictures that cannot be read are refused.",
        skip=False,
    ),
    PictureConfig(
        name="readable",
        description="Pictures that cannot be read are left out.",
        skip=True,
    ),
]


def make_info(builder, description, homepage, size, label):
    """What a builder tells of its data set.

    Args:
        builder: `tfds.core.DatasetBuilder`.
        description, homepage: Strings.
        size: Integer, height and width of its pictures, in RGB.
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
    """Decodes picture files, and remembers which it could not.

    Args:
        config: `PictureConfig`.
        name: String, the data set's.
    """

    def __init__(self, config, name):
        self.config = config
        self.name = name
        self.broken: dict = {}

    def read(self, path, size=None, decode=None):
        """The bytes of a JPEG file in RGB.

        Args:
            path: `epath.Path`.
            size: Tuple of height and width to resize to, or None to leave the
                file as it is.
            decode: Function of the bytes that raises where they cannot be
                decoded later. Decoders differ in what they forgive.

        Returns:
            Bytes, or None if it cannot be decoded.
        """
        image = tfds.core.lazy_imports.PIL_Image
        try:
            data = path.read_bytes()
            picture = image.open(io.BytesIO(data)).convert("RGB")
            if decode is not None:
                decode(data)
        except Exception as error:  # Of two libraries, about any bytes.
            # Pillow's errors hold the address of the stream; tell the reason.
            self.broken[path.name] = str(error).split(" <")[0]
            return None
        if size is None:
            return data
        height, width = size
        picture = picture.resize((width, height), image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    def finish(self):
        """To be called when all were read.

        Returns:
            Dict from file name to the reason, of those that were left out.

        Raises:
            ValueError: If some could not be read, and they are refused.
        """
        if self.broken and not self.config.skip:
            names = list(self.broken)
            more = len(names) - NAMED
            raise ValueError(
                f"Pictures of {self.name} are missing or cannot be decoded. "
                "Expected all of them to be whole: download the archive again, "
                f"or leave them out with '{self.name}/readable'. Received "
                f"{len(names)} that are not: {', '.join(names[:NAMED])}"
                + (f" and {more} more" if more > 0 else "")
            )
        return self.broken


def extract(source, url, dl_manager):
    """The folder of an archive.

    Args:
        source: Its path, or that of what it was extracted to; or None.
        url: String, where it is downloaded from if the source is None.
        dl_manager: `tfds.download.DownloadManager`.

    Returns:
        `epath.Path`.
    """
    if source is None:
        return epath.Path(dl_manager.download_and_extract(url))
    source = epath.Path(source)
    return source if source.is_dir() else dl_manager.extract(source)


def find_root(folder, child, name):
    """The folder of an extracted archive that holds another one.

    Args:
        folder: `epath.Path` of this folder or of the one around it.
        child: String, name of a file or folder that it must hold.
        name: String, the data set's.

    Returns:
        `epath.Path`.

    Raises:
        ValueError: If neither holds it.
    """
    inner = (
        [x for x in folder.iterdir() if x.is_dir()] if folder.exists() else []
    )
    for candidate in (folder, *inner):
        if (candidate / child).exists():
            return candidate
    raise ValueError(
        f"This is not {name}. Expected a folder that holds {child}. "
        f"Received: {folder}, which holds "
        f"{sorted(x.name for x in inner) or 'no folders'}"
    )
