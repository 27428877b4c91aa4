"""How results show themselves.

The one place that reaches for `pellucid.render`, and for what stands above results in core,
by name and at call time.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
    from matplotlib.figure import Figure  # noqa: TID251 - the name of a type, drawn elsewhere


class Displayed:
    """Give a result its views; the drawing itself lives in `pellucid.render`."""

    def show(self) -> None:
        """Print the result to the terminal with colours where the terminal has them."""
        importlib.import_module("pellucid.render.terminal").show(self)

    def html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one HTML page that loads nothing and is whole without script; write it to `path` if given."""
        page: str = importlib.import_module("pellucid.render.html").page(self)
        if path is not None:
            importlib.import_module("pellucid.core.saving").write_text(Path(path), page)
        return page

    def figure(self) -> Figure:
        """Return a matplotlib figure (needs the extra `plot`)."""
        figure: Figure = importlib.import_module("pellucid.render.figure").figure(self)
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save to the folder `path`, whole or not at all, as JSON and safetensors; `pellucid.open` reads it back."""
        saved: Path = importlib.import_module("pellucid.core.saving").save(self, path)
        return saved

    def _repr_html_(self) -> str:
        """Show the result in a notebook as a framed page, which reaches neither the notebook nor the network."""
        from html import escape

        page: Any = self.html()
        # Without `allow-same-origin` the frame is a stranger to the notebook, so that its script may run.
        return (
            f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" title="{escape(type(self).__name__)}" '
            'style="width:100%;height:480px;border:0;resize:vertical"></iframe>'
        )


def as_pandas(result: Displayed, function: str) -> pd.DataFrame:
    """Return a result as a data frame, by a function of `pellucid.core.tables`."""
    frame: pd.DataFrame = getattr(importlib.import_module("pellucid.core.tables"), function)(result)
    return frame
