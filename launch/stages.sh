# shellcheck shell=bash
# What the scripts for one machine share: help, refusals, and a heading for each stage. They set `stages`, how many
# there are, and `out`, where everything goes.
script=$(basename "$0")
# Large pages for the memory that every step takes anew: on a CPU a step is some 15 % faster.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
number=0

# The comment at the script's head.
usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"
}

refuse() {
    echo "${script%.sh}: $1. See launch/$script --help" >&2
    exit 2
}

# Prints a stage's heading, and remembers its number.
stage() {
    number=$((number + 1))
    printf '\n[%d/%d] %s (%d min %02d s since the start)\n' \
        "$number" "${stages:?}" "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

# Runs the command that makes a folder, unless the folder is there.
unless_there() {
    if [[ -d $1 ]]; then
        echo "$1 is there"
    else
        "${@:2}"
    fi
}

farewell() {
    local status=$?
    if ((status)); then
        echo "${script%.sh}: stopped before the end. What is done stays in ${out:?}: the same command goes on from here," \
            "once what is wrong above is put right" >&2
    fi
}
