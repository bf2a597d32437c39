"""What a paper has to cite, numbered in the order in which its methods name it, and as BibTeX."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpu_sdm import __version__
from gpu_sdm.report.html import Html, join, tag


@dataclass(frozen=True, slots=True)
class Reference:
    """A publication.

    Parameters
    ----------
    key : str
        Of the BibTeX entry.
    authors : str
        "Family I, Family I".
    title, source : str
        Source is the journal, or the publisher of a book.
    year : int
        Of publication.
    volume, pages, doi : str
        Empty where there is none.
    kind : {"article", "book", "software"}
        Of the BibTeX entry.
    """

    key: str
    authors: str
    title: str
    source: str
    year: int
    volume: str = ""
    pages: str = ""
    doi: str = ""
    kind: str = "article"

    def html(self) -> Html:
        """Write it for a list of references."""
        where = self.source
        if self.volume:
            where += f" {self.volume}{f':{self.pages}' if self.pages else ''}"
        doi = [" doi:", tag("span", self.doi, class_="doi")] if self.doi else []
        return join([f"{self.authors} ({self.year}) {self.title}. ", tag("em", where), ".", *doi])

    def bibtex(self) -> str:
        """Write it as an entry of a .bib file."""
        names = (name.strip().rpartition(" ") for name in self.authors.split(","))
        people = " and ".join(
            f"{family}, {' '.join(f'{i}.' for i in initials)}" if family else f"{{{initials}}}"
            for family, _, initials in names
        )
        if self.kind == "software":
            people = f"{{{self.authors}}}"
        container = {"article": "journal", "book": "publisher", "software": "howpublished"}
        fields = {
            "author": people,
            "title": f"{{{self.title}}}",
            container[self.kind]: self.source,
            "year": str(self.year) if self.kind != "software" else "",
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
        }
        body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
        return f"@{'misc' if self.kind == 'software' else self.kind}{{{self.key},\n{body}}}\n"


KNOWN = {
    r.key: r
    for r in (
        Reference(
            "psi",
            "Albajes-Eizagirre A, Solanes A, Vieta E, Radua J",
            "Voxel-based meta-analysis via permutation of subject images (PSI): Theory and "
            "implementation for SDM",
            "NeuroImage", 2019, "186", "174-184", "10.1016/j.neuroimage.2018.10.077",
        ),
        Reference(
            "metansue",
            "Albajes-Eizagirre A, Solanes A, Radua J",
            "Meta-analysis of non-statistically significant unreported effects",
            "Statistical Methods in Medical Research", 2019, doi="10.1177/0962280218811349",
        ),
        Reference(
            "essdm",
            "Radua J, Mataix-Cols D, Phillips ML, El-Hage W, Kronhaus DM, Cardoner N, Surguladze S",
            "A new meta-analytic method for neuroimaging studies that combines reported peak "
            "coordinates and statistical parametric maps",
            "European Psychiatry", 2012, "27", "605-611", "10.1016/j.eurpsy.2011.04.001",
        ),
        Reference(
            "anisotropic",
            "Radua J, Rubia K, Canales-Rodríguez EJ, Pomarol-Clotet E, Fusar-Poli P, "
            "Mataix-Cols D",
            "Anisotropic kernels for coordinate-based meta-analyses of neuroimaging studies",
            "Frontiers in Psychiatry", 2014, "5", "13", "10.3389/fpsyt.2014.00013",
        ),
        Reference(
            "tfce",
            "Smith SM, Nichols TE",
            "Threshold-free cluster enhancement: addressing problems of smoothing, threshold "
            "dependence and localisation in cluster inference",
            "NeuroImage", 2009, "44", "83-98", "10.1016/j.neuroimage.2008.03.061",
        ),
        Reference(
            "dl",
            "DerSimonian R, Laird N",
            "Meta-analysis in clinical trials",
            "Controlled Clinical Trials", 1986, "7", "177-188", "10.1016/0197-2456(86)90046-2",
        ),
        Reference(
            "rubin",
            "Rubin DB",
            "Multiple Imputation for Nonresponse in Surveys",
            "Wiley", 1987, kind="book",
        ),
        Reference(
            "hedges",
            "Hedges LV",
            "Distribution theory for Glass's estimator of effect size and related estimators",
            "Journal of Educational Statistics", 1981, "6", "107-128",
            "10.3102/10769986006002107",
        ),
        Reference(
            "higgins",
            "Higgins JPT, Thompson SG",
            "Quantifying heterogeneity in a meta-analysis",
            "Statistics in Medicine", 2002, "21", "1539-1558", "10.1002/sim.1186",
        ),
        Reference(
            "lancaster",
            "Lancaster JL, Tordesillas-Gutiérrez D, Martinez M, Salinas F, Evans A, Zilles K, "
            "Mazziotta JC, Fox PT",
            "Bias between MNI and Talairach coordinates analyzed using the ICBM-152 brain template",
            "Human Brain Mapping", 2007, "28", "1194-1205", "10.1002/hbm.20345",
        ),
        Reference(
            "freedman",
            "Freedman D, Lane D",
            "A nonstochastic interpretation of reported significance levels",
            "Journal of Business & Economic Statistics", 1983, "1", "292-298",
        ),
        Reference(
            "score",
            "Hemerik J, Goeman JJ, Finos L",
            "Robust testing in generalized linear models by sign flipping score contributions",
            "Journal of the Royal Statistical Society B", 2020, "82", "841-864",
        ),
        Reference(
            "bullmore",
            "Bullmore ET, Suckling J, Overmeyer S, Rabe-Hesketh S, Taylor E, Brammer MJ",
            "Global, voxel, and cluster tests, by theory and permutation, for a difference between "
            "two groups of structural MR images of the brain",
            "IEEE Transactions on Medical Imaging", 1999, "18", "32-42", "10.1109/42.750253",
        ),
        Reference(
            "egger",
            "Egger M, Davey Smith G, Schneider M, Minder C",
            "Bias in meta-analysis detected by a simple, graphical test",
            "BMJ", 1997, "315", "629-634", "10.1136/bmj.315.7109.629",
        ),
        Reference(
            "aal2",
            "Rolls ET, Joliot M, Tzourio-Mazoyer N",
            "Implementation of a new parcellation of the orbitofrontal cortex in the automated "
            "anatomical labeling atlas",
            "NeuroImage", 2015, "122", "1-5", "10.1016/j.neuroimage.2015.07.075",
        ),
    )
}  # fmt: skip
SOFTWARE = "gpusdm"


@dataclass(slots=True)
class Citations:
    """Numbers given in the order of first mention.

    Parameters
    ----------
    version : str
        Of gpu-sdm that made the result.
    """

    version: str = __version__
    order: list[str] = field(default_factory=list)

    def __call__(self, *keys: str) -> Html:
        """Cite: numbers in brackets, each a link to its entry."""
        for key in keys:
            if key not in self.order:
                self.order.append(key)
        numbers = sorted(self.order.index(key) + 1 for key in keys)
        links = (tag("a", n, href=f"#ref-{n}") for n in numbers)
        return join(["\N{NO-BREAK SPACE}[", join(links, ", "), "]"])

    def references(self) -> list[Reference]:
        """Give what was cited, in order."""
        mine = Reference(
            SOFTWARE, "The gpu-sdm developers", f"gpu-sdm, version {self.version}",
            "Computer program", 2026, kind="software",
        )  # fmt: skip
        return [mine if key == SOFTWARE else KNOWN[key] for key in self.order]

    def listing(self) -> Html:
        """Give the list of references."""
        entries = (
            tag("li", reference.html(), id=f"ref-{n}")
            for n, reference in enumerate(self.references(), 1)
        )
        return tag("ol", *entries, class_="references")

    def bibtex(self) -> str:
        """Give all entries of the .bib file."""
        return "\n".join(reference.bibtex() for reference in self.references())
