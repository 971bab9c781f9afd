#!/usr/bin/env bash
# One command for everything: sets up an environment once, then runs `python -m unlearnkit`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset MPLBACKEND # if set, kernels do not choose the inline one and notebooks lose their figures

usage() {
  cat <<'TEXT'
usage: ./run_all.sh [NOTEBOOK ...] [--profile PROFILE] [--dataset DATASET] [OPTION ...]
       ./run_all.sh --check [PYTEST OPTION ...]
       ./run_all.sh --site
       ./run_all.sh --setup

Without arguments it computes the profile quick, runs the notebooks on your results, and redraws
the tables and figures of every committed study. It makes the environment first, if there is none.
  --check   run lint, format and every test
  --site    build the web site into site/
  --setup   only make the environment .venv, or fill the active conda environment
  --help    this text; .venv/bin/python -m unlearnkit run --help lists every OPTION

A profile is the file of a study's settings: a path ending in .toml, or one of these.
  quick (digits, minutes on two cores), smoke (a short test of the machinery),
  starter (a first look at your own images, notebook 07),
  methods (all methods on digits), quick-lira (many models, for notebook 09),
  cifar10 (a real study without a GPU, hours),
  cifar10-methods (all methods on the same data), paper (the published setting, one GPU)
Set PYTHON=/path/to/python3.11 to choose the interpreter of .venv.
Relative paths, as in --dataset folder:PATH, start from the folder of this script.
TEXT
}

die() { echo "run_all.sh: $*" >&2; exit 1; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

make_venv() {
  local candidate
  for candidate in "${PYTHON:-python3.11}" "${PYTHON:-python3}"; do
    is_recent "$candidate" || continue
    "$candidate" -m venv --clear .venv && return
    die "could not make .venv: no space, no permission, or (Debian) no python3-venv installed"
  done
  die "${PYTHON:-python3} is not Python 3.11 or newer; install one, or set PYTHON=/path/to/it"
}

# The stamp holds all that the set-up depends on; compared as text, so nothing is hashed.
wanted() { "$python" --version; pwd; cat requirements.txt; }

set_up() {
  local fresh="" no_deps
  home=${CONDA_PREFIX:-.venv}
  python=$home/bin/python stamp=$home/unlearnkit-setup.txt
  if [[ -x $python && -f $stamp ]] && wanted 2>/dev/null | cmp -s - "$stamp"; then return; fi

  [[ $home == .venv || -x $python ]] || die "CONDA_PREFIX is $home, but it has no bin/python"
  echo "setting up $home (once: 2 to 5 minutes on a fast line, 6 GB on disk)"
  [[ $(cat "$stamp" 2>/dev/null) != interrupted ]] || fresh=yes
  if [[ $home == .venv && (-n $fresh || ! -x $python || ! -f .venv/pyvenv.cfg) ]]; then
    make_venv
    fresh=""
  fi
  is_recent "$python" || die "the Python in $home is older than 3.11; use a newer environment"
  "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null ||
    die "$home has no pip and cannot get one"

  { echo interrupted >"$stamp"; } 2>/dev/null || die "no permission to write into $home"
  # A half-written package may lack the list of its files: then pip can only write over it.
  "$python" -m pip install -qq --no-warn-conflicts ${fresh:+--ignore-installed} \
    -r requirements.txt ||
    die "could not install requirements.txt (pip says why above); run this again to continue"
  no_deps=$(sed -n 's/^# pip install --no-deps //p' requirements.txt)
  "$python" -m pip install -qq --no-deps "$no_deps" ||
    die "could not install $no_deps (pip says why above); run this again to continue"
  "$python" -m pip install -qq --no-deps --no-build-isolation --editable . ||
    die "could not install unlearnkit in $home (pip says why above)"
  wanted >"$stamp"
}

check() {
  export TQDM_DISABLE=1 OMP_NUM_THREADS=1 # as many processes as cores, a thread each
  "$python" -m ruff check . || die "ruff check found faults (above)"
  "$python" -m ruff format --check . || die "some files are not formatted: $python -m ruff format ."
  exec "$python" -m pytest --numprocesses auto "$@"
}

site() {
  "$python" docs/build.py site || die "the site was not built (Sphinx says why above)"
  echo "Site: $PWD/site/index.html"
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  --setup) [[ $# -eq 1 ]] || die "--setup takes no further arguments"; set_up ;;
  --site) [[ $# -eq 1 ]] || die "--site takes no further arguments"; set_up; site ;;
  --check) set_up; check "${@:2}" ;;
  *) set_up; exec "$python" -m unlearnkit run "$@" ;;
esac
