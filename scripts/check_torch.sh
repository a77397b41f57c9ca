#!/bin/sh
# Tests of the core with another version of torch, in an environment of its own: what a machine brings along
# is seldom what constraints.txt names.
#
# usage: scripts/check_torch.sh VERSION [pytest arguments]
#   VENV    environment, default .venv-torch-VERSION; one that is there is used
#   PYTHON  of a new one, default python3
#
# From the package index the wheel for Linux comes with CUDA, some 5 GB in all; a folder of wheels with a
# CPU build (PIP_FIND_LINKS) is taken first, if VERSION names it: 2.11.0+cpu.
set -eu
cd "$(dirname "$0")/.."
version=${1:?usage: scripts/check_torch.sh VERSION [pytest arguments]}
shift
venv=${VENV:-.venv-torch-$version}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
python=$venv/bin/python

# Pins that belong to another torch go; so does numpy's, which has no wheel for every Python.
pins=$venv/constraints.txt
grep -Ev '^(torch|triton|nvidia-[a-z0-9-]+|setuptools|numpy)==' constraints.txt > "$pins"
"$python" -m pip install --quiet --disable-pip-version-check -c "$pins" "torch==$version" "numpy<2.4" "setuptools>=77" wheel
"$python" -m pip install --quiet --disable-pip-version-check -c "$pins" \
	gymnasium stable-baselines3 safetensors dm-control==1.0.28 mujoco==3.3.0 "shimmy[dm-control]" h5py pillow \
	hypothesis pygame pytest rich tensorboard tqdm matplotlib "imageio[ffmpeg]" sb3-contrib
"$python" -c 'import sys, torch, numpy; print("python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__)'

# The package lies in three folders; without an installation it is seen through links.
tree=$venv/tree
rm -rf "$tree"
mkdir -p "$tree/difftori_gym"
for part in difftori_gym/* wrappers baselines; do
	ln -sfn "$(pwd)/$part" "$tree/difftori_gym/$(basename "$part")"
done
[ $# -gt 0 ] || set -- tests/trajopt tests/models tests/learning tests/rl tests/scripts/test_gpu_evidence.py
PYTHONPATH=$(cd "$tree" && pwd) OMP_NUM_THREADS=1 exec "$python" -m pytest -q -m "not slow" "$@"
