#!/usr/bin/env bash
# Makes a Python environment from a lock file, with desta_jax installed in place; does nothing if it is as it should be.
#
#   launch/environment.sh ENV LOCK [PACKAGE==VERSION ...]
#
# The packages named after the lock file are installed without what they ask for.
# PYTHON names the Python to use; without it, the first of python3, python3.11, python3.12 and python3.13 that is 3.11 or newer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local candidate candidates=(python3 python3.11 python3.12 python3.13)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    if [[ ${PYTHON:-} ]]; then
        echo "environment: PYTHON=$PYTHON is no Python 3.11 or newer with venv" >&2
    else
        echo "environment: no Python 3.11 or newer with venv found; install one, or name one with PYTHON=/path/to/python3" >&2
    fi
    return 1
}

# What the environment is made of: a change in any of these makes it anew.
stamp_of() {
    {
        "$1" -c 'import sys; print(sys.version)'
        echo "$here" "${@:3}" # an environment runs the checkout that it was made in, wherever it is copied
        cat launch/requirements.lock "$2" setup.py desta_jax/__init__.py
    } | cksum
}

main() {
    local usage="usage: launch/environment.sh ENV LOCK [PACKAGE==VERSION ...]"
    local environment=${1:?$usage} lock=${2:?$usage} python wanted
    local pip=("$environment/bin/python" -m pip install -qq --disable-pip-version-check)
    shift 2
    cd "$here"
    python=$(find_python)
    wanted=$(stamp_of "$python" "$lock" "$@")
    if [[ -f $environment/stamp && $(<"$environment/stamp") == "$wanted" ]]; then
        return
    fi
    if [[ -e $environment && ! -f $environment/stamp ]]; then
        echo "environment: $environment is there and not of this script's making; name another with ENVIRONMENT=DIR" >&2
        return 1
    fi
    echo "Making the Python environment $environment (a few minutes the first time)"
    mkdir -p "$environment"
    : >"$environment/stamp" # it is ours, and not whole
    find "$environment" -mindepth 1 -maxdepth 1 ! -name stamp -exec rm -rf {} +
    "$python" -m venv "$environment"
    "${pip[@]}" -r "$lock"
    (($# == 0)) || "${pip[@]}" --no-deps "$@"
    "${pip[@]}" --no-deps --no-build-isolation --use-pep517 -e .
    echo "$wanted" >"$environment/stamp"
}

main "$@"
