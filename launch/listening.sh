#!/usr/bin/env bash
# Makes a small model that hears, on this machine, from its own words: corpus, rows, training, adapter and table.
#
#   launch/listening.sh --sakura FOLDER [--out DIR] [--sources NAME,...] [--lessons N,N,N] [--further N] [--rows N]
#
# data/listening/README.md tells what each stage does. Two to three hours on two cores, most of them training. It can be
# interrupted and run again: what is done is not done twice.
#
#   --sakura FOLDER   a checkout of https://github.com/ckyang1124/SAKURA: real recordings for training and for the table
#   --out DIR         where everything goes (default: listening)
#   --sources NAME,...  of the corpus (default: all of them, which needs Linux on x86-64, Python 3.11 or 3.12 and a
#                     mirror of Debian; the lessons need "sakura" alone)
#   --lessons N,...   steps of three lessons: a few questions about language, sex of the voice and emotion; hundreds of
#                     them, with clips as other microphones and rooms would have recorded them; and requests of other
#                     kinds among them; the adapter is the mean of the last two, where the last counts twice
#                     (default: 400,400,320)
#   --further N       steps on rows of every kind about every clip (default: 0, which leaves them out)
#   --rows N          questions about each real recording in that one (default: 4)
#
# ENVIRONMENT names another Python environment than .venv, PYTHON the Python to make it with.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lessons.sh"

# Trains $out/NAME from what the run before has learned (`runs` remembers them); the first, from the models.
go_on() {
    local model=$out/model
    if ((${#runs[@]})); then
        export_to "${runs[-1]}" "${runs[-1]}_adapter"
        model=${runs[-1]}_model
        convert_to "$model" --adapter "${runs[-1]}_adapter"
    fi
    runs+=("$out/$1")
    train_from "$model" "$out/$1" "$2" "$out/records" "${@:3}"
}

out=listening sakura='' sources='' lessons=400,400,320 further=0 rows=4
read_arguments "out sakura sources lessons further rows" "$@"
[[ $lessons =~ ^[1-9][0-9]*(,[1-9][0-9]*){2}$ ]] || refuse "--lessons must be three numbers above 0, not '$lessons'"
[[ $rows =~ ^[1-9][0-9]*$ ]] || refuse "--rows must be a number above 0, not '$rows'"
[[ $further =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--further must be a number, not '$further'"
[[ ,${sources:-sakura}, == *,sakura,* ]] || refuse "--sources must have sakura: hearing is learned from it"
find_places
stages=$((10 + (further ? 2 : 0)))
prepare

stage "The corpus"
make_corpus ${sources:+--sources "$sources"}

stage "Rows"
lesson_rows=({first_,}{language,gender,emotion} kinds)
for name in "${lesson_rows[@]}"; do
    write_lesson "$name" "$out/rows/$name"
done
for name in "${!versions[@]}"; do
    vary_rows "$out/rows" "$name"
    lesson_rows+=("${name}_varied")
done

stage "Records"
for name in "${lesson_rows[@]}"; do
    write_records "$name" "$out/records" "$out/rows/$name"/rows-*.jsonl
done

IFS=, read -ra steps <<<"$lessons"
runs=() taught_so_far=lessons # a run's name says what it was made by: other lessons are other runs
for lesson in "${!taught[@]}"; do
    stage "Lesson $((lesson + 1))"
    taught_so_far+=_${steps[lesson]}
    go_on "$taught_so_far" "${steps[lesson]}" "${taught[lesson]}"
done

if ((further)); then
    stage "Rows of every kind"
    clips=$out/corpus/train
    "$python" data/listening/corpus/transcribe.py --corpus "$out/corpus" --model "$out/model"
    write_rows "$clips/recorded.jsonl" speech instructions "$rows" "$out/rows/recorded_$rows"
    every=("$out/rows/recorded_$rows"/rows-*.jsonl)
    for kind in synthesised dialogue sound music; do
        [[ -s $clips/$kind.jsonl ]] || continue # no source of them
        write_rows "$clips/$kind.jsonl" "${kind/synthesised/speech}" instructions 1 "$out/rows/$kind"
        every+=("$out/rows/$kind"/rows-*.jsonl)
    done
    write_rows "$out/corpus/test/speech.jsonl" speech instructions 1 "$out/rows/validation" --limit 160
    write_records "every_$rows" "$out/records" "${every[@]}"
    write_records validation "$out/records" "$out"/rows/validation/rows-*.jsonl

    stage "Training on all of them"
    go_on "${taught_so_far}_further_${further}_$rows" "$further" "language=1 gender=1 emotion=1 every_$rows=3" \
        --config.data.validation="$out/records/validation" --config.optimizer.peak_learning_rate=5e-4
fi

stage "The adapter"
last=${runs[-1]}_adapter
export_to "${runs[-1]}" "$last"
"$python" data/listening/average.py --adapter "${runs[-2]}_adapter" "$last" "$last" --out "$out/adapter" \
    --dtype bfloat16 --overwrite

stage "The table"
trained=$(IFS=, && echo "${runs[*]}")
tabulate "$out/table/$(basename "${runs[-1]}")" --adapter own="$out/adapter" --trained own="$trained"
