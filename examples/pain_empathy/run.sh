#!/usr/bin/env bash
# The analyses of He et al. (pain empathy in mental disorders), step by step, on SIMULATED peaks.
#
#   examples/pain_empathy/run.sh [--small] [OUT]
#
# OUT is pain-empathy-output unless given. --small: 4 mm, 10 imputations, 50 permutations, a minute
# or so; otherwise 2 mm, 50 imputations, 1,000 permutations. What is finished there is kept, so the
# same command goes on after an interruption.
#
#   GPU_SDM            the command (gpu-sdm)
#   GPU_SDM_DATABASE   folder of Neurosynth or NeuroQuery for decode; without it, skipped
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$here/project_simulated
gpu_sdm=${GPU_SDM:-gpu-sdm}
size=()
figures=(slices glass mosaic forest funnel jackknife)
slope=()
if [ "${1:-}" = --small ]; then
  size=(--voxel-size 4 --imputations 10 --permutations 50)
  figures=(slices forest)
  slope=(--no-report)
  shift
fi
out=${1:-pain-empathy-output}
main=$out/main
clusters=(--threshold uncorrected)
planted=(--at 0,48,0 --at 60,-14,-12 --at -22,-48,-28 --at -52,-70,2)
mkdir -p "$out"

step() { printf '\n== %s\n' "$*" >&2; }
sdm() { printf '$ gpu-sdm %s\n' "$*" >&2; $gpu_sdm "$@"; }
once() { # folder, then the command that makes it
  if [ -f "$1/run.json" ]; then echo "$1 is finished; kept" >&2; else shift && sdm "$@"; fi
}

step "0 the input (every peak is SIMULATED), the studies, the flow of the review (made-up counts)"
sdm check "$project"
sdm studies "$project" --columns peaks_are --out "$out/studies"
sdm prisma "$here/prisma_made_up.csv" --out "$out/prisma_made_up.png"

step "1-2 the meta-analysis, age as covariate: Xu2020 has none and leaves this model"
once "$main" permute "$project" --out "$main" --covariates age --no-report ${size[@]+"${size[@]}"}

step "3 thresholds: the paper's, and corrected ones"
names=(--positive "patients > controls" --negative "patients < controls")
sdm threshold "$main" --map uncorrected --p 0.0025 --extent 11 "${names[@]}" \
  --out "$main/thresholds/paper"
sdm threshold "$main" --map fwe-tfce "${names[@]}"

step "4 heterogeneity, publication bias, effects of every study, grade of the evidence"
sdm heterogeneity "$main" "${clusters[@]}" "${planted[@]}"
sdm bias "$main" "${clusters[@]}" "${planted[@]}"
sdm extract "$main" --clusters uncorrected "${planted[@]}"
sdm grade "$main" "${clusters[@]}"

step "5 leave one study out; regression on gender, age and treatment (all eleven, ten for age)"
sdm jackknife "$main" "${clusters[@]}"
for column in female_percent age treated; do
  once "$out/slope_$column" model "$main" --formula "1 + $column" --contrast "$column" \
    --out "$out/slope_$column" ${slope[@]+"${slope[@]}"}
done

step "6-7 networks and terms of the peaks"
if [ -n "${GPU_SDM_DATABASE:-}" ]; then
  sdm decode "$main" --database "$GPU_SDM_DATABASE" "${clusters[@]}"
else
  echo "SKIPPED: decode needs a database; set GPU_SDM_DATABASE to its folder" >&2
fi

step "8 figures and the report"
sdm plot "$main" "${figures[@]}" --threshold uncorrected
sdm report "$main"
echo "every peak of this analysis is SIMULATED" >&2
echo "$out"
