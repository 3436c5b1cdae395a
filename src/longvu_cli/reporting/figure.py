"""What the compression keeps of a video, as a picture: similarity, relevance and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longvu_cli.errors import UsageError
from longvu_cli.extras import require_matplotlib
from longvu_cli.moments import clock
from longvu_cli.reporting.charts import waterfall
from longvu_cli.reporting.own_file import require_own_file, unwritable
from longvu_cli.results import Compression
from longvu_cli.statistics import Fate, Resolution, Timeline
from longvu_cli.video_file import printable
from longvu_cli.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150
# Inches: the width, and the height of a panel.
_WIDTH, _PANEL = 9.0, 2.2
_ACCENT, _SOFT, _MARK, _GONE, _BAND = "#1f6f69", "#9cc5c0", "#a5500f", "#dcd7cc", "#f0c66a"
# Seconds between the marks of the time axis.
_TICKS_S, _MOST_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200), 9
_PNG = b"\x89PNG\r\n\x1a\n"


def require_figure(target: Path) -> None:
    """Notice early that the figure cannot be drawn, or would take the place of something that is no PNG.

    Raises:
        ExtraNotInstalled: matplotlib is not there.
        UsageError: the file cannot be written.
    """
    require_matplotlib("the plot", extra="eval")
    if target.suffix.lower() != ".png":
        raise UsageError(f"{_shown(target)} does not end in .png", hint="name it plot.png")
    require_own_file(target, _shown(target), kind="PNG", is_own=lambda beginning: beginning.startswith(_PNG))


def write_figure(compression: Compression, target: Path) -> None:
    """Draw what was kept, and write it as a PNG, whole or not at all.

    Raises:
        ExtraNotInstalled: matplotlib is not there.
        UsageError: the file cannot be written.
    """
    require_matplotlib("the plot", extra="eval")
    from matplotlib.figure import Figure

    panels = figure_panels(compression)
    figure = Figure(figsize=(_WIDTH, _PANEL * len(panels)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    draw = {"similarity": _similarity, "relevance": _relevance, "tokens": _tokens}
    for one, panel in zip(axes, panels, strict=True):
        draw[panel](one, compression)
        one.spines[["top", "right"]].set_visible(False)
    try:
        with whole_file(target) as aside:
            figure.savefig(aside, format="png")  # by Agg, which needs no display
    except OSError as error:
        raise unwritable(_shown(target), error) from error


def figure_panels(compression: Compression) -> tuple[str, ...]:
    """Which panels there is something to show in."""
    similar = any(value is not None for value in compression.timeline.similarity)
    return (
        *(["similarity"] if similar else []),
        *(["relevance"] if compression.question is not None else []),
        "tokens",
    )


def _similarity(axes: Axes, compression: Compression) -> None:
    timeline, threshold = compression.timeline, compression.recipe.dino_threshold
    values = [float("nan") if value is None else value for value in timeline.similarity]
    axes.plot(timeline.times, values, color=_ACCENT, linewidth=1.2)
    axes.axhline(threshold, color=_MARK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:g}")
    for fate, colour, name in ((Fate.KEPT, _ACCENT, "kept"), (None, _GONE, "dropped")):
        chosen = [
            time
            for time, own in zip(timeline.times, timeline.fates, strict=True)
            if (own is Fate.KEPT) == (fate is Fate.KEPT)
        ]
        # Below the curve, in hundredths of the panel's height.
        axes.plot(
            chosen,
            [0.03] * len(chosen),
            "|",
            color=colour,
            markersize=6,
            transform=axes.get_xaxis_transform(),
            label=f"{name}, {len(chosen):,}",
        )
    axes.set_ylabel("similarity\nwith its window")
    _time_axis(axes, compression.timeline)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")


def _relevance(axes: Axes, compression: Compression) -> None:
    frames = compression.statistics.per_frame
    for number, moment in enumerate(compression.evidence().moments):
        label = "moments" if number == 0 else None
        axes.axvspan(moment.start_s, moment.end_s, color=_BAND, alpha=0.4, linewidth=0, label=label)
    times, scores = [frame.time_s for frame in frames], [frame.relevance or 0.0 for frame in frames]
    axes.plot(times, scores, color=_SOFT, linewidth=1.2)
    for kind, colour, name in ((Resolution.HIGH, _ACCENT, "full resolution"), (Resolution.LOW, _SOFT, "low")):
        own = [(frame.time_s, frame.relevance or 0.0) for frame in frames if frame.resolution is kind]
        if own:
            axes.plot(*zip(*own, strict=True), ".", color=colour, markersize=5, label=f"{name}, {len(own):,}")
    axes.set_ylabel("relevance\nfor the question")
    _time_axis(axes, compression.timeline)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")


def _tokens(axes: Axes, compression: Compression) -> None:
    bars = waterfall(compression.statistics)
    names = [bar.name for bar in bars]
    whole = max(1, bars[0].tokens)
    before = [bars[0].tokens, *(bar.tokens for bar in bars[:-1])]
    axes.barh(names, before, color=_GONE, height=0.6)
    axes.barh(names, [bar.tokens for bar in bars], color=_ACCENT, height=0.6)
    for row, bar in enumerate(bars):
        text = f" {bar.tokens:,}  {bar.tokens / whole:.1%}"
        axes.text(before[row], row, text, va="center", fontsize="small")
    budget = compression.statistics.visual_budget
    axes.axvline(budget, color=_MARK, linewidth=1.2, linestyle="--", label=f"room, {budget:,}")
    axes.set_xlim(0, max(whole, budget) * 1.18)
    axes.invert_yaxis()
    axes.set_xlabel("tokens")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="lower right", frameon=False, fontsize="small")


def _time_axis(axes: Axes, timeline: Timeline) -> None:
    start, end = timeline.times[0], timeline.times[-1]
    room = max(end - start, 1.0)
    step = next((step for step in _TICKS_S if room / step <= _MOST_TICKS), _TICKS_S[-1])
    from matplotlib.ticker import MultipleLocator

    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda value, _: clock(max(0.0, value)))
    axes.set_xlim(start - 0.01 * room, end + 0.01 * room)


def _shown(target: Path) -> str:
    return f"--plot {printable(str(target))}"
