# gpu-sdm with the CUDA engine; without a GPU the same image runs the CPU path.
# Build: docker build -t gpu-sdm .
# Run:   docker run --rm --gpus all -v gpu-sdm-cache:/cache -v "$PWD":/data gpu-sdm \
#          permute /data/PROJECT --out /data/OUT
# /data must be writable for user 10001, or give --user "$(id -u):$(id -g)".
FROM nvidia/cuda:12.9.1-runtime-ubuntu24.04

RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/gpu-sdm
COPY pyproject.toml README.md LICENSE ./
COPY docker docker
COPY gpu_sdm gpu_sdm
COPY kernels kernels
COPY examples examples
RUN PIP_NO_CACHE_DIR=1 sh docker/install.sh /opt/venv cuda12

# Template, bounds, likelihood maps, compiled loops and kernels: kept in a volume, whoever runs.
RUN useradd --uid 10001 --create-home sdm && install -d -m 1777 /cache
ENV PATH=/opt/venv/bin:$PATH \
    GPU_SDM_CACHE=/cache/gpu-sdm \
    NUMBA_CACHE_DIR=/cache/numba \
    CUPY_CACHE_DIR=/cache/cupy
VOLUME /cache
USER sdm
WORKDIR /data
ENTRYPOINT ["gpu-sdm"]
