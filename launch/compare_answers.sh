#!/usr/bin/env bash
# Whose answers a model should learn from: trains an adapter on, on the same clips and questions each time, with the
# model's own answers, with bare values ("male") and with another model's answers; and makes a table of them.
#
#   launch/compare_answers.sh --sakura FOLDER [--out DIR] [--adapter FOLDER] [--steps N]
#                             [--writer WHERE [--writer_model NAME]]
#
# An hour to an hour and a half on two cores, and another writer's time. It can be interrupted and run again: what is
# done is not done twice.
#
#   --sakura FOLDER   a checkout of https://github.com/ckyang1124/SAKURA
#   --out DIR         where everything goes; what listening.sh made there is used (default: listening)
#   --adapter FOLDER  to train on from, an export (default: data/listening/adapter, which comes with the project)
#   --steps N         of each run, on the short answers of listening.sh's third lesson (default: 70)
#   --writer WHERE    the other language model: a folder as Hugging Face has it, or an OpenAI-compatible endpoint, up to
#                     /v1; all then learn from the questions that both models answered (default: none)
#   --writer_model NAME  of the model at that endpoint
#
# ENVIRONMENT names another Python environment than .venv, PYTHON the Python to make it with.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lessons.sh"

out=listening sakura='' adapter=$(dirname "${BASH_SOURCE[0]}")/../data/listening/adapter steps=70 writer='' writer_model=''
read_arguments "out sakura adapter steps writer writer_model" "$@"
[[ $steps =~ ^[1-9][0-9]*$ ]] || refuse "--steps must be a number above 0, not '$steps'"
[[ -f $adapter/model.safetensors ]] || refuse "--adapter must be a folder with a model.safetensors, not '$adapter'"
at_endpoint=''
[[ $writer != http*://* ]] || at_endpoint=yes
[[ ${at_endpoint:+yes} == "${writer_model:+yes}" ]] || refuse "--writer_model goes with an endpoint, and that with it"
[[ -z $writer || $at_endpoint || -f $writer/config.json ]] ||
    refuse "--writer must be a folder with a model's config.json, or an endpoint's address"
adapter=$(cd "$adapter" && pwd)
[[ -z $writer || $at_endpoint ]] || writer=$(cd "$writer" && pwd)
find_places
stages=7
prepare

stage "The corpus"
[[ -f $out/corpus/corpus.json ]] || make_corpus --sources sakura # that of listening.sh may have more sources

stage "The model's own answers"
asked=(language gender emotion)
for name in "${asked[@]}"; do
    write_lesson "$name" "$out/rows/$name"
done

stage "Other answers to the same questions"
# Another adapter is another comparison, and so is another writer: another place's model of the same name too.
name=$writer${writer_model:+_$writer_model}
to=$out/compared/$(cat "$adapter"/*.{json,safetensors} | cksum | cut -d' ' -f1)${name:+_${name//[!A-Za-z0-9._-]/_}}
whose=(own labels ${writer:+foreign})
written_by=(--endpoint "$writer" --endpoint_model "$writer_model")
if [[ $writer && ! $at_endpoint ]]; then
    convert_to "$to/writer" --llm "$writer"
    written_by=(--model "$to/writer")
fi
for name in "${asked[@]}"; do
    own=$out/rows/$name
    if [[ $writer ]]; then
        write_lesson "$name" "$to/rows/foreign/$name" --answered_in "$own" "${written_by[@]}"
        "$python" data/listening/corpus/common.py --rows "$own" --answered_in "$to/rows/foreign/$name" \
            --out "$to/rows/own/$name"
    else
        mkdir -p "$to/rows/own/$name"
        cp "$own"/rows-*.jsonl "$to/rows/own/$name"
    fi
    "$python" data/listening/corpus/label.py --rows "$to/rows/own/$name" --out "$to/rows/labels/$name"
done

stage "Training on each"
compared=$(sed -E 's/ (first_[a-z_]+|kinds)=[0-9]+//g' <<<"${taught[-1]}")
convert_to "$to/model" --adapter "$adapter"
adapters=(before="$adapter") trained_in=()
for each in "${whose[@]}"; do
    run=$to/${each}_$steps
    for name in "${asked[@]}"; do
        vary_rows "$to/rows/$each" "$name"
        write_records "$name" "$to/records/$each" "$to/rows/$each/$name"/rows-*.jsonl
        write_records "${name}_varied" "$to/records/$each" "$to/rows/$each/${name}_varied"/rows-*.jsonl
    done
    train_from "$to/model" "$run" "$steps" "$to/records/$each" "$compared"
    export_to "$run" "${run}_adapter"
    adapters+=("$each=${run}_adapter")
    trained_in+=("$each=$run")
done

stage "The table of all answers"
tabulate "$to/table_$steps" --adapter "${adapters[@]}" --trained "${trained_in[@]}"
