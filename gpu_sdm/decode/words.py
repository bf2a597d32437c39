"""Which terms speak of behaviour: words of anatomy, of methods and of plain English do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu_sdm.decode._files import read_lines
from gpu_sdm.errors import InputError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A term with one of these in it names a place.
ANATOMY = _words(
    """
    44 acc accumbens amygdala amygdalar anatomic anatomical angular anterior arcuate area areas
    ba basal bilateral bilaterally brain brains brainstem broca brodmann calcarine callosum
    caudal caudate central cerebellar cerebello cerebellum cerebral cingulate cingulum claustrum
    colliculus contralateral corpus cortex cortical cortices cortico crus cuneus dacc dlpfc
    dmpfc dorsal dorso dorsolateral dorsomedial extrastriate fasciculus ffa frontal fronto
    frontoparietal frontotemporal fusiform ganglia genu globus gm gray grey gyri gyrus
    hemisphere hemispheres hemispheric heschl hippocampal hippocampi hippocampus hypothalamus
    ifg inferior insula insular intraparietal ipl ips ipsilateral junction lateral left limbic
    lingual lobe lobes lobule lobules m1 medial medulla mesial mesolimbic mfg midbrain
    midcingulate middle midline mpfc mtg mtl neocortex neocortical nigra nuclei nucleus
    occipital occipito occipitotemporal ofc opercular opercularis operculum orbital
    orbitofrontal pag pallidum pallidus paracentral paracingulate parahippocampal
    parahippocampus paralimbic parietal parieto pars pcc periaqueductal perirhinal perisylvian
    pfc planum pole pons postcentral posterior precentral precuneus prefrontal pregenual
    premotor psts pulvinar putamen region regional regions retrosplenial right rostral s1 sii
    sma spl striatal striatum sts subcortical subgenual subregion subregions substantia sulci
    sulcus superior supplementary supramarginal tegmental temporal temporale temporo
    temporoparietal thalamic thalamo thalamus tpj triangularis v1 v2 v5 vascular ventral
    ventrolateral ventromedial vermis vlpfc vmpfc wernicke white
    """
)
# A term with one of these in it names a method or what it measures.
METHODS = _words(
    """
    alff analyses analysis asl atrophy baseline biomarker biomarkers bold causal clinical
    cluster clustering coactivation coherence conjunction connection connections connectivity
    contrast coupled coupling data dataset datasets default density diffusion dmn dti dynamics
    echo eeg electroencephalography emission erp evidence experiment experiments fa fc fiber
    fibers findings flow fluctuations fmri functional group groups hub hubs hypotheses
    hypothesis imaging inference inferences intrinsic lesion lesions literature longitudinal
    magnetic magnetoencephalography matter mechanism mechanisms meg meta metabolic metabolism
    method methods model models morphological morphology morphometry mr mri ms multivariate
    network networks neural neurally neuroanatomical neurobiological neuroimaging neuron
    neuronal neurons oscillations parameters participant participants patient patients pet
    physiological positron projection projections psychophysiological questionnaire regression
    regressor reho resonance rest resting results rsfc sample samples scan scanned scanner
    scanning scans sham signal signaling signals spin spontaneous statistical statistically
    structural structure structures studied studies study subtraction synchrony t1 t2 tensor
    tesla threshold thresholds tms tomography topography tract tracts transcranial univariate
    volume volumes volumetric voxel voxels
    """
)
# A term of nothing but these (and of the above) says nothing.
GENERAL = _words(
    """
    aberrant ability abnormal abnormalities abnormality absence absent abstract access accurate
    accurately act activated activates activating activation activations active activities
    activity acute addition adjusted adolescence adolescent adolescents adult adulthood adults
    age aged ages al alone along alteration alterations altered alternating among amount
    analyzed apparent approach architecture aspect aspects assessed assessment associate
    associated association associations available average axis back band based basic basis best
    better biological block blocks brief broad broadly capacity carriers case cases category
    center centered change changed changes characteristic characteristics characterized child
    childhood children chinese class classic classical clear clinically closely co combined
    common commonly compared comparison comparisons complete completed complex complexity
    component components concentrations concurrent condition conditions confounding consecutive
    considered consistent consistently constant containing context contexts continuous
    contribute contributes contribution contributions control controls convergence convergent
    core correct correlate correlated correlates correlation correlations critical crucial
    current currently daily damage day days decreased deep defined degree demonstrate
    demonstrated dependence dependent determine develop developed diagnosed diagnosis diagnostic
    difference differences different differential differentially differently difficult
    difficulty digit dimension dimensional dimensions diminished direct directed directly
    display displayed dissociation distance distinct distributed distribution domain domains
    dominance dominant double driven dual due duration dynamic early effect effective effects
    efficacy elderly electrical elevated eleven engaged engagement english enhanced enhancement
    environmental essential estimation et evaluated evaluation event events everyday examination
    examine examined exhibited existing expected experimental explain explored expressed
    extended extension extent external factor factors failure false far fast feature features
    female females field figure finding fine first five focal focus focused follow following
    form formation forms four free frequencies frequency function functioning functions
    fundamental future gain gender general generalized generate generation global good great
    greater healthy hence high higher highly history human humans i identified identify ii iii
    impact implicated implications important include included including incomplete inconsistent
    increase increased increases increasing independent index indexed indicate indicated indices
    individual individuals induced influence information initial input inputs insight integrate
    integrated integration integrity intensity interaction interactions intermediate internal
    interval intervals intra investigate investigated involved involvement isolated issue issues
    iv joint key known lack large larger late latencies latency lead least length less level
    levels like likelihood likely limited line linear linked little load local localization
    localized location locations long loop loops low lower magnitude main maintenance major
    making male man manipulation many map mapping maps marked marker may mean measure measured
    measures mediated mediating mediation men mid mild minimal minimum mixed modal modalities
    modality mode modification modified modulate modulated modulation months moreover multi
    multiple nature need negative negatively never new non normal null number objective observed
    occur old older one onset open order organization origin otherwise outcome output overall
    pair paired paradigm paradigms parallel part partial partially participants particular parts
    passive past path pathological pathology pathway pathways pattern patterns people
    performance performed performing period periods peripheral persistent persons phase phases
    phenomena phenomenon plus point points poor poorly populations portion position positive
    positively possible post potential power pre predominantly presence present presented
    preserved previous previously primarily primary prime principal principle prior problem
    problems process processed processes processing produced product profile progressive
    prolonged prone proposed provide provided quality quantitative random range rapid rate rates
    rating ratings recent reduced reduction reductions reference referred regulatory related
    relation relations relationship relationships relative relatives relevance relevant remote
    report reported represent representation representations required research resolution
    resources respective respectively response responses responsible responsive restricted
    reveal revealed reversed review robust role roles route scale scales second secondary
    segments segregation selective sense separate separated separation sequential serial series
    set sets setting severe severity sex shape shared short show showed shown shows si
    significant significantly similar similarity similarly simple single site situation six size
    sizes slow small source sources space span sparse special specialization specialized
    specific specifically specificity specified spectrum stage stages standard state states
    static status step stg stimuli stimulus stop stream streams strength stronger strongly style
    sub subject subjects subsequent subset success suggest suggested suggesting suggests support
    supporting supports surface sustained symptom system systems target targets task tasks
    technique techniques term terms test tested testing theories theory therapeutic third three
    time times top topic total track transient transition treatment trial trials true two type
    types typical typically ubiquitous underlie underlying understanding unilateral upper use
    used uses using usually utility validity value values variability variable variables variant
    variants variation various versus video videos view voluntary weak well whole wide wider
    within without women work world x year years yet young younger youth zone
    """
)
TOPICS = "weight"  # kind of values of topic models


def speaks_of_behaviour(term: str, topic: bool = False) -> bool:
    """Whether a term is kept by default.

    Parameters
    ----------
    term : str
        Words divided by blanks, or a topic: its number and words divided by underscores.
    topic : bool
        Of a topic, all words must be of anatomy, methods or plain English for it to go.
    """
    words = [w for w in term.lower().replace("_", " ").split() if not w.isdigit() or w == "44"]
    if not topic and any(w in ANATOMY or w in METHODS for w in words):
        return False
    return not all(w in ANATOMY or w in METHODS or w in GENERAL or len(w) < 2 for w in words)


def read_terms_file(path: Path) -> tuple[list[str], list[str]]:
    """Read a list of terms: those to look at, and those to leave out.

    Parameters
    ----------
    path : path
        A term a line; `-term` leaves one out; lines that begin with # say nothing.

    Returns
    -------
    wanted, unwanted : list of str

    Raises
    ------
    InputError
        If it cannot be read or holds no term.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    wanted = [line for line in lines if not line.startswith("-")]
    unwanted = [line[1:].strip() for line in lines if line.startswith("-")]
    if not wanted and not any(unwanted):
        raise InputError("holds no term; write one a line, or -term for one to leave out.", path)
    return wanted, unwanted


def chosen_terms(
    terms: Sequence[str], kind: str, path: Path | None = None, everything: bool = False
) -> np.ndarray:
    """Choose the terms to look at.

    Parameters
    ----------
    terms : (T,) sequence of str
        The vocabulary.
    kind : str
        Of its values; "weight" is a topic model.
    path : path, optional
        Of `read_terms_file`. Terms it names are the only ones; where it only leaves some out,
        they go in addition to what goes by default.
    everything : bool
        Leave nothing out by default.

    Returns
    -------
    (T,) bool

    Raises
    ------
    InputError
        If the file names a term that the vocabulary lacks.
    """
    keep = np.ones(len(terms), bool)
    if not everything:
        keep = np.array([speaks_of_behaviour(t, kind == TOPICS) for t in terms])
    if path is None:
        return keep
    wanted, unwanted = read_terms_file(path)
    place = {term.lower(): i for i, term in enumerate(terms)}
    strange = [t for t in (*wanted, *unwanted) if t.lower() not in place]
    if strange:
        raise InputError(
            f"names {len(strange)} term(s) that the vocabulary lacks: {', '.join(strange[:8])}"
            f"{', ...' if len(strange) > 8 else ''}; its {len(terms):,} terms are in the file "
            "data-*_vocabulary.txt of the database.",
            path,
        )
    if wanted:
        keep = np.zeros(len(terms), bool)
        keep[[place[t.lower()] for t in wanted]] = True
    keep[[place[t.lower()] for t in unwanted]] = False
    return keep
