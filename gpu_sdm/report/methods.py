"""The methods paragraph of a paper: what this run did, with its numbers and citations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpu_sdm.config import CLUSTER_STATISTICS
from gpu_sdm.report.facts import Facts, count
from gpu_sdm.report.html import Html, join, tag
from gpu_sdm.report.references import SOFTWARE, Citations

PACKAGES = {
    "python": "Python",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "numba": "Numba",
    "nibabel": "NiBabel",
    "nilearn": "Nilearn",
}
STATISTIC_SAYS = {
    "voxel": "the voxelwise maximum of {tested}",
    "tfce": "threshold-free cluster enhancement (TFCE; E = 0.5, H = 2)",
    "cluster-extent": "the extent of clusters",
    "cluster-mass": "the mass of clusters",
}


def listed(words: Sequence[Any]) -> Html:
    """Write "a, b and c"."""
    if len(words) < 2:
        return join(words)
    return join([join(words[:-1], ", "), " and ", words[-1]])


def _input(facts: Facts, cite: Citations) -> Iterator[Any]:
    yield f"We meta-analysed {count(facts.studies, 'study', 'studies')} "
    yield f"for which {s.where} " if (s := facts.settings).where else ""
    yield f"({facts.designs}; {facts.subjects:,} subjects) with gpu-sdm {facts.version}"
    yield cite(SOFTWARE)
    yield ", an open implementation of seed-based d mapping with permutation of subject images"
    yield cite("psi")
    yield ". "
    if facts.peaks:
        yield f"Input were {count(facts.peaks, 'reported peak', 'reported peaks')}"
        if facts.unknown_heights:
            every = "all" if facts.unknown_heights == facts.peaks else f"{facts.unknown_heights:,}"
            yield f" (of {every} of them only the sign was known)"
        yield f" and statistical maps of {facts.images} of the studies" if facts.images else ""
        yield ". "
    elif facts.images:
        yield f"Input were statistical maps of {count(facts.images, 'study', 'studies')}. "
    if talairach := facts.converted("tal"):
        yield f"{count(talairach, 'peak', 'peaks')} in Talairach space came to MNI space through "
        yield "the inverse of the icbm2tal transforms"
        yield cite("lancaster")
        yield ". "
    if brett := facts.converted("brett"):
        yield f"{count(brett, 'peak', 'peaks')} came to MNI space through the inverse of Brett's "
        yield "mni2tal. "
    yield f"The analysis covered {facts.voxels:,} voxels of {facts.settings.voxel_size} mm "
    yield "in a mask of our own. " if facts.run["settings"].get("mask") else "of grey matter. "


def _effects(facts: Facts, cite: Citations) -> Iterator[Any]:
    s = facts.settings
    yield "Effect sizes are Hedges g"
    yield cite("hedges")
    if s.bounds is not None:
        yield "; the lower and upper bounds of every study were taken from files. "
    elif facts.peaks:
        yield ". From the peaks and the threshold of each study, lower and upper bounds of its "
        yield "effect in every voxel were derived with "
        kind = "a fully anisotropic" if s.anisotropy == 1 else "an anisotropic"
        kind = "an isotropic" if s.anisotropy == 0 else kind
        detail = f", anisotropy {s.anisotropy:g}" if 0 < s.anisotropy < 1 else ""
        yield f"{kind} kernel (full width at half maximum {s.fwhm:g} mm{detail})"
        yield cite("essdm", "anisotropic")
        if s.anisotropy > 0 and s.template is not None:
            yield f" over a correlation template of our own ({s.template.name})"
        elif s.anisotropy > 0:
            yield " over the program's own model of the correlations of grey matter"
        yield ". "
    else:
        yield ". "
    if facts.imputations > 1:
        yield "The most likely effect and the heterogeneity of each voxel were estimated by "
        yield "maximum likelihood with the unreported effects as interval-censored"
        yield cite("metansue")
        law = "SDM-PSI's law" if s.imputation == "sdm" else "truncated normal draws"
        yield f", and {facts.imputations} data sets were imputed within the bounds ({law}"
        if facts.discards:
            yield f"; the {count(facts.discards, 'study', 'studies')} that most supported the "
            yield "effect left out of the estimate in each voxel"
        yield "). "
    else:
        yield "Every effect was known, so nothing was imputed. "


def _pooling(facts: Facts, cite: Citations) -> Iterator[Any]:
    s = facts.settings
    tau2 = "the estimator of DerSimonian and Laird" if s.tau2 == "dl" else "restricted likelihood"
    yield "The mean effect " if s.formula is None else f"The linear model {s.formula} "
    yield f"was fitted with random effects, tau\N{SUPERSCRIPT TWO} by {tau2}"
    if s.tau2 == "dl":
        yield cite("dl")
    if s.formula is not None:
        yield f"; {' and '.join(facts.tested)} was tested"
    elif s.covariates:
        yield f", with {listed(s.covariates)} as nuisance (the effect at their mean was tested)"
    if facts.imputations > 1:
        yield ", and results of the imputed data sets were combined by Rubin's rules"
        yield cite("rubin")
    yield "; heterogeneity is given as I\N{SUPERSCRIPT TWO}"
    yield cite("higgins")
    yield ". "


def _inference(facts: Facts, cite: Citations) -> Iterator[Any]:
    s = facts.settings
    names: list[Any] = []
    for statistic in s.statistic:
        key = {"tfce": "tfce", "cluster-mass": "bullmore"}.get(statistic)
        says = STATISTIC_SAYS[statistic].format(tested="SDM-Z" if s.test == "z" else "the score")
        names.append(join([says, cite(key) if key else ""]))
    yield "Family-wise error was controlled by "
    yield "all " if facts.exact else ""
    yield f"{facts.permutations:,} "
    yield "distinct permutations, each used once (exact)" if facts.exact else "permutations"
    yield " (the observed one included) through "
    yield listed(names)
    if s.cluster_threshold is not None and set(s.statistic) & set(CLUSTER_STATISTICS):
        yield f" (voxels of |z| > {s.cluster_threshold:g}, joined by faces, edges and corners)"
    yield ". "
    if facts.moderator:
        yield "Residuals of whole studies were permuted"
        yield cite("freedman")
        yield ". "
    elif s.exchange == "subjects":
        kind, value = s.noise_law()
        says = {
            "scan": f"a correlation of {value:g} between neighbouring voxels",
            "gaussian": f"a Gaussian smoothness of {value:g} mm (full width at half maximum)",
            "template": f"the correlations of the template to the power {value:g}",
        }[kind]
        one, two = facts.samples
        signs = "signs of the subjects" + (" (one-sample studies)" if two else "")
        labels = "group labels of the subjects" + (" (two-sample studies)" if one else "")
        what = f"{signs} or {labels}" if one and two else labels if two else signs
        yield f"Subject images were simulated with {says}; {what} were permuted, and each "
        yield "permutation was meta-analysed as the data were. "
    else:
        studies = s.exchange == "studies"
        yield "Signs of whole studies were flipped" if studies else "Peaks were moved over the mask"
        if s.test == "score":
            yield "; tested was the score of the mean effect at zero"
            yield cite("score")
            yield ", which follows from the bounds alone. "
        else:
            yield ", and everything was estimated again each time. "
    if "sequential" in facts.run:
        rule = facts.run["sequential"]
        place = ", ".join(f"{rule[f'{a}_mm']:g}" for a in "xyz")
        yield f"Permutations were to stop, after {rule['permutations_at_most']:,} at most, when "
        yield f"{rule['hits_wanted']} of them reached the value of the peak ({place}), named "
        yield "beforehand. "
    yield "Tests are one-tailed for each side, each at its own alpha. "
    yield f"The seed of all random draws is {s.seed}. "
    if facts.atlas:
        yield f"Peaks were labelled with {facts.atlas}"
        yield cite("aal2") if facts.atlas == "AAL2" else ""
        yield ". "
    if s.sdm_compat:
        yield "Known deviations of SDM-PSI 6.21 were reproduced on purpose. "
    if s.search != "optimum":
        yield "The mean was searched as SDM-PSI 6.21 searches it, which can stop short. "
    known = facts.run.get("versions", {})
    shown = [f"{says} {known[name]}" for name, says in PACKAGES.items() if name in known]
    yield join(["Computed on the ", facts.run["backend"]["name"], " backend with "])
    yield listed(shown)
    yield "."


def methods(facts: Facts, further: Sequence[str], cite: Citations) -> list[Html]:
    """Write the paragraphs.

    Parameters
    ----------
    facts : Facts
        Of the result.
    further : sequence of str
        Analyses of the result that were made, e.g. "bias".
    cite : Citations
        Numbers what is cited.
    """
    after: list[Any] = []
    if "jackknife" in further:
        after.append("The analysis was repeated without each study in turn (jackknife). ")
    if "bias" in further:
        after += ["Small-study effects were tested by Egger's regression", cite("egger"),
                  " in each imputed data set. "]  # fmt: skip
    paragraphs = (
        join([*_input(facts, cite), *_effects(facts, cite), *_pooling(facts, cite)]),
        join([*_inference(facts, cite), " " if after else "", *after]),
    )
    return [tag("p", paragraph) for paragraph in paragraphs]
