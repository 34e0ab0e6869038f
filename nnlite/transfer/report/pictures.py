"""The pictures worth looking at, small and without anything but their pixels, with maps over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnlite.data import Sample, decode, open_dataset
from nnlite.errors import DataError, NnliteError
from nnlite.layout import Array
from nnlite.transfer.attributor import Attributor
from nnlite.transfer.overlay import colours_of
from nnlite.transfer.report.html import Html, element
from nnlite.transfer.report.record import RunRecord

SHOWN = 6
"""Pictures of each kind."""
SIDE = 144
"""Pixels of the longer side in the page."""
QUALITY = 78
WINDOWS = 4
"""Occlusion covers a square of the picture's side divided by this, and moves on by three quarters of it:
by halves it would take twice as long, more than the features of all pictures."""
ENOUGH = 512
"""A JPEG may be decoded smaller, but not below this."""


def most_confident_mistakes(predictions: list[dict[str, Any]], count: int = SHOWN) -> list[dict[str, Any]]:
    """Wrong, and sure of it: the surest first."""
    wrong = [row for row in predictions if row["label"] != row["predicted"]]
    return sorted(wrong, key=lambda row: -row["probability"])[:count]


def least_confident(
    predictions: list[dict[str, Any]], without: list[dict[str, Any]], count: int = SHOWN
) -> list[dict[str, Any]]:
    """The lowest probabilities of an answer, right or wrong, that are not shown already."""
    rest = [row for row in predictions if not any(row is one for one in without)]
    return sorted(rest, key=lambda row: row["probability"])[:count]


class Gallery:
    """Draws pictures of a run; without its model they come without maps, without a file not at all."""

    def __init__(self, record: RunRecord, maps: bool = True) -> None:
        self.record = record
        self._samples: dict[str, Sample] | None = None
        self.base = Path(str(record.config.get("working_directory", ".")))
        self.names = record.names
        self.planes = len(record.metrics["preprocessing"]["mean"])
        self.attributor: Attributor | None = None
        self.without_maps = "the model is no longer in the run folder"
        if not maps:
            self.without_maps = "they were left out for want of memory; nnlite report draws them"
        elif record.model.is_file():
            try:
                self.attributor = Attributor.open(record.model)
                self.attributor.settle()
            except NnliteError as error:
                self.without_maps = str(error)

    def cards(self, rows: list[dict[str, Any]]) -> Html:
        """One figure for each picture."""
        return element("div", [self._card(row) for row in rows], class_="gallery")

    def _card(self, row: dict[str, Any]) -> Html:
        path = Path(str(row["picture"]))
        said, true = self.names[row["predicted"]], self.names[row["label"]]
        verdict = "right" if said == true else f"is {true}"
        caption = element(
            "figcaption",
            element("b", f"{said}, {row['probability']:.0%} sure"), f": {verdict}",
            element("br"), f"{path.parent.name}/{path.name}",
        )  # fmt: skip
        try:
            picture = self._read(str(row["picture"]))
            shown = [_image(one, what) for one, what in self._with_maps(picture, row, said, true)]
        except NnliteError as error:
            shown = [element("p", str(error), class_="soft")]
        return element("figure", element("div", shown), caption, class_="card")

    def _read(self, name: str) -> Array:
        """A file, or a part of the data set that goes by this name."""
        path = self.base / name
        if path.is_file():
            return decode(path, at_least=(ENOUGH, ENOUGH), channels=self.planes)
        if self._samples is None:
            config = self.record.config
            options = {key: config[key] for key in ("validation", "seed", "task", "images") if key in config}
            if config.get("split_seed") is not None:
                options["seed"] = config["split_seed"]
            try:
                data = open_dataset(self.base / str(config["data"]), **options)
                self._samples = {sample.name: sample for sample in data.validation}
            except NnliteError:  # the data set is gone or another one
                self._samples = {}
        if name not in self._samples:
            raise DataError(f"{name}: the picture is no longer there")
        return self._samples[name].read(at_least=(ENOUGH, ENOUGH), channels=self.planes)

    def _with_maps(
        self, picture: Array, row: dict[str, Any], said: str, true: str
    ) -> Iterator[tuple[Array, str]]:
        what = f"A picture of {true} that was taken for {said}" if said != true else f"A picture of {true}"
        if self.attributor is None:
            yield colours_of(picture), what
            return
        seen = self.attributor.look(picture)
        side = min(self.attributor.preprocessing.size)
        patch = max(1, side // WINDOWS)
        options: dict[str, Any] = {"target": row["predicted"]}
        try:
            cam = self.attributor.attribute(seen, "gradcam", **options)
            yield cam.picture, what
            yield cam.overlay(), f"Grad-CAM: where it found {said}"
        except NnliteError:  # a network without feature maps
            yield colours_of(picture), what
        covered = self.attributor.attribute(
            seen, "occlusion", patch=patch, stride=max(1, 3 * patch // 4), **options
        )
        yield covered.overlay(), f"Occlusion: covering red parts makes {said} less likely, blue ones more"


def _image(picture: Array, words: str) -> Html:
    """The picture within the page: made anew from its pixels, so that no EXIF is left."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
    return element("img", src=source, alt=words, title=words, width=image.width, height=image.height)
