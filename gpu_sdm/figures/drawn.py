"""The figures of a finished result, by kind: file name and Figure, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.errors import SettingError
from gpu_sdm.figures.of_result import View
from gpu_sdm.figures.palette import Look
from gpu_sdm.findings.maps import Source, shown_statistic, tested_map
from gpu_sdm.findings.refit import SiteEffects
from gpu_sdm.finished import Finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Named = Iterator[tuple[str, "Figure"]]


@dataclass(frozen=True, eq=False)
class Plotter:
    """Makes figures of one result.

    Parameters
    ----------
    source : Finished or SdmResults
        The result.
    view : View
        What the brain figures show, and where the others look.
    look : Look
        Width and background.
    site_effects : callable
        Gives the effects of the studies at the sites; called once, where needed.
    cuts : tuple of str and floats, optional
        Plane and millimetres: slices there instead of through the peaks.
    titled : bool
        Whether figures say which threshold they show; that nothing passes is said always.
    """

    source: Source
    view: View
    look: Look
    site_effects: Callable[[Sequence[Any]], SiteEffects]
    cuts: tuple[str, tuple[float, ...]] | None = None
    titled: bool = True

    @property
    def title(self) -> str:
        """Heading of the brain figures."""
        return self.view.title if self.titled else self.view.warning

    @cached_property
    def at(self) -> SiteEffects:
        """Effects at the sites of the view."""
        return self.site_effects(self.view.sites)

    @property
    def finished(self) -> Finished:
        """The result, if it is ours.

        Raises
        ------
        SettingError
            If it is SDM-PSI's, which keeps too little.
        """
        if not isinstance(self.source, Finished):
            raise SettingError(
                f"{self.source.folder} is SDM-PSI's; this figure needs a result of gpu-sdm permute."
            )
        return self.source

    def slices(self) -> Named:
        """Draw three planes through each peak, or the cuts asked for."""
        from gpu_sdm.figures import slices

        v = self.view
        if self.cuts is not None:
            plane, at = self.cuts
            figure = slices.cuts(v.values, v.space, at, plane=plane, shown=v.shown, scale=v.scale,
                                 title=self.title, look=self.look)  # fmt: skip
        else:
            figure = slices.slices(v.values, v.space, v.peaks, v.texts(" "), shown=v.shown,
                                   scale=v.scale, title=self.title, look=self.look)  # fmt: skip
        yield f"slices_{v.name}", figure

    def glass(self) -> Named:
        """Draw the map on a glass brain with labelled peaks, and the reported peaks on another."""
        from gpu_sdm.figures.evidence import table
        from gpu_sdm.figures.glass import MOST, glass_map, glass_peaks

        v = self.view
        yield f"glass_{v.name}", glass_map(
            v.values, v.space, v.shown, peaks=v.peaks, texts=v.texts(), scale=v.scale,
            title=self.title, look=self.look,
        )  # fmt: skip
        path = self.source.folder / "tables" / "peaks.tsv"
        if path.is_file():
            rows = table(path)
            if rows:
                xyz = np.array([[float(row[f"{a}_mm"]) for a in "xyz"] for row in rows])
                of = [row["study"] for row in rows]
                sign = np.array([float(row["g"]) for row in rows])
                few = len(set(of)) <= MOST  # more have no legend to tell them by
                yield (
                    "glass_peaks",
                    glass_peaks(xyz, of if few else None, sign, look=self.look),
                )

    def surface(self) -> Named:
        """Draw the cortical surface."""
        from gpu_sdm.figures.surface import surface

        v = self.view
        yield (
            f"surface_{v.name}",
            surface(v.values, v.space, v.shown, scale=v.scale, title=self.title, look=self.look),
        )

    def mosaic(self) -> Named:
        """Draw axial slices that cover what is shown."""
        from gpu_sdm.figures.mosaic import mosaic

        v = self.view
        yield (
            f"mosaic_{v.name}",
            mosaic(v.values, v.space, v.shown, scale=v.scale, title=self.title, look=self.look),
        )

    def forest(self) -> Named:
        """Draw a forest plot at each site."""
        from gpu_sdm.figures.evidence import forests
        from gpu_sdm.figures.forest import forest

        found = forests(self.at, self.finished.map("i2"))
        for site in self.at.sites:
            own = found[site.name]
            yield f"forest_{_place(site)}", forest(own.rows, own.summary, look=self.look)

    def funnel(self) -> Named:
        """Draw a funnel plot at each site."""
        from gpu_sdm.figures.evidence import funnels
        from gpu_sdm.figures.funnel import funnel

        found = funnels(self.at)
        for site, text in zip(self.at.sites, self.view.texts(" "), strict=True):
            own = found[site.name]
            figure = funnel(own.rows, own.summary, title=text, look=self.look)
            yield f"funnel_{_place(site)}", figure

    def bubble(self) -> Named:
        """Draw a bubble plot at each site, where the analysis tests a moderator."""
        from gpu_sdm.figures.bubble import bubble
        from gpu_sdm.findings.bubble import bubbles, require_moderator

        require_moderator(self.at.analysis.design)
        for s, site in enumerate(self.at.sites):
            yield f"bubble_{_place(site)}", bubble(bubbles(self.at, s), look=self.look)

    def null(self) -> Named:
        """Draw the null of each statistic."""
        from gpu_sdm.figures.null import null

        for statistic, maxima in self.source.maxima().items():
            shown = shown_statistic(self.source, statistic)
            yield f"null_{statistic}", null(maxima, shown, look=self.look)

    def convergence(self) -> Named:
        """Draw p of the sites as permutations accumulate, for TFCE or, without it, for z."""
        from gpu_sdm.figures.convergence import convergence

        maxima = self.source.maxima()
        wanted = "voxel" if self.view.rule.map.startswith("fwe-voxel") else "tfce"
        statistic = wanted if wanted in maxima else "voxel"
        if statistic not in maxima:
            raise SettingError(
                f"{self.source.folder} has no null of z or TFCE, whose p a voxel could have."
            )
        tested = tested_map(self.source)
        z = np.asarray(self.source.map(tested), np.float64)
        series = {}
        for site, text in zip(self.view.sites, self.view.texts(" "), strict=True):
            voxel = int(site.voxels[0])
            side = int(z[voxel] < 0)
            name = ("tfce", "tfce_neg")[side] if statistic == "tfce" else tested
            height = float(self.source.map(name)[voxel])
            # As precise as the map: else rounding could lift the largest above its own maximum.
            series[text] = maxima[statistic][side].astype(np.float32), abs(height)
        says = {"voxel": "voxel z", "tfce": "TFCE"}[statistic]
        title = f"{says}, family-wise error corrected, one-sided" if self.titled else ""
        yield f"convergence_{statistic}", convergence(series, title=title, look=self.look)

    def jackknife(self) -> Named:
        """Draw a strip for each cluster of the jackknife that was run.

        Raises
        ------
        SettingError
            If there is none.
        """
        from gpu_sdm.figures.evidence import strips
        from gpu_sdm.figures.jackknife import jackknife
        from gpu_sdm.figures.labels import peak_text

        found = strips(self.source.folder / "jackknife")
        if not found:
            raise SettingError(
                f"{self.source.folder} has no jackknife; run gpu-sdm jackknife "
                f"{self.source.folder} first."
            )
        for (threshold, cluster), strip in found.items():
            row = strip.cluster
            title = peak_text(row["label"], [float(row[f"{a}_mm"]) for a in "xyz"], " ")
            figure = jackknife(strip.folds, strip.whole, **strip.line, title=title, look=self.look)
            yield f"jackknife_{threshold}_{cluster}", figure


def _place(site: Any) -> str:
    return "_".join(f"{v:g}" for v in site.xyz_mm)


KINDS: dict[str, Callable[[Plotter], Named]] = {
    "slices": Plotter.slices,
    "glass": Plotter.glass,
    "surface": Plotter.surface,
    "mosaic": Plotter.mosaic,
    "forest": Plotter.forest,
    "funnel": Plotter.funnel,
    "null": Plotter.null,
    "convergence": Plotter.convergence,
    "jackknife": Plotter.jackknife,
    "bubble": Plotter.bubble,
}
# Left out of `all`, with a sentence, where the result has not what they need.
MAYBE = ("forest", "funnel", "null", "convergence", "jackknife", "bubble")
