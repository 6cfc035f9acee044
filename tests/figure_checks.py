"""What can be asked of a figure: which texts are seen in it, and which of them run into each other."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def texts(figure):
    """Texts that are seen, with their boxes in pixels."""
    FigureCanvasAgg(figure).draw()
    hidden = set()
    for axes in figure.axes:
        hidden |= set() if axes.get_visible() else set(axes.findobj(Text))
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack:  # exists but is not drawn
                    hidden |= {tick.label1, tick.label2}
    seen = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    return [(t.get_text(), t.get_window_extent()) for t in seen]


def overlaps(figure):
    """Pairs of texts that share more than a pixel in both directions."""
    found = []
    for (a, x), (b, y) in itertools.combinations(texts(figure), 2):
        wide = min(x.x1, y.x1) - max(x.x0, y.x0)
        high = min(x.y1, y.y1) - max(x.y0, y.y0)
        if wide > 1 and high > 1:
            found.append((a, b))
    return found
