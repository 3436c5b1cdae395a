"""The needle test as a picture, in the style of the paper's Figure 7: one heat map per method, side by side."""

from __future__ import annotations

from pathlib import Path

from longvu_cli.evaluation.needle import Method, NeedleReport
from longvu_cli.extras import require_matplotlib

LABELS = {
    Method.DEFAULT: "LongVU",
    Method.WITHOUT_STC: "w/o STC",
    Method.WITHOUT_QUERY: "w/o Query",
    Method.UNIFORM: "uniform frames",
}
# Inches of a heat map, and of what is beside and around them.
_MAP, _HEIGHT, _MARGIN = 3.2, 3.6, 1.4
DPI = 150
# None right, half, all.
_COLOURS = ("#d73027", "#fee08b", "#1a9850")


def write_figure(report: NeedleReport, path: Path) -> None:
    """Draw accuracy over the number of frames and the depth of the needle.

    Raises:
        ExtraNotInstalled: matplotlib is not there.
        OSError: the file cannot be written.
    """
    require_matplotlib("the figure", extra="eval")
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    methods, lengths = report.options.methods, sorted(report.options.frames)
    depths = report.options.depth_values
    colours = LinearSegmentedColormap.from_list("accuracy", _COLOURS)
    figure = Figure(figsize=figure_inches(len(methods)), dpi=DPI, layout="constrained")
    maps = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    accuracy = {(cell.method, cell.frames, cell.depth): cell.accuracy for cell in report.cells}
    for axes, method in zip(maps, methods, strict=True):
        rows = [[accuracy[method, frames, depth] for frames in lengths] for depth in depths]
        image = axes.imshow(rows, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
        mean = sum(map(sum, rows)) / (len(depths) * len(lengths))
        axes.set_title(f"{LABELS[method]}: {mean:.2f}")
        axes.set_xticks(range(len(lengths)), [_short(frames) for frames in lengths])
        axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f}" for depth in depths])
        axes.set_xlabel("number of frames")
        # Thin lines between the cells, as on squared paper.
        axes.set_xticks([index + 0.5 for index in range(len(lengths) - 1)], minor=True)
        axes.set_yticks([index + 0.5 for index in range(len(depths) - 1)], minor=True)
        axes.grid(which="minor", color="white", linewidth=0.8)
        axes.tick_params(which="both", length=0)
    maps[0].set_ylabel("depth of the needle (%)")
    figure.colorbar(image, ax=list(maps), label="accuracy")
    figure.savefig(path, format="png")  # by Agg, which needs no display


def figure_inches(methods: int) -> tuple[float, float]:
    """Width and height of the figure."""
    return (_MAP * methods + _MARGIN, _HEIGHT)


def _short(frames: int) -> str:
    """``400``, ``1.6k``."""
    return str(frames) if frames < 1000 else f"{frames / 1000:.1f}".removesuffix(".0") + "k"
