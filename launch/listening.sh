#!/usr/bin/env bash
# Makes a small model that hears, on this machine, from its own words: corpus, rows, training, adapter and table.
#
#   launch/listening.sh [--out DIR] [--sakura FOLDER] [--rows N] [--epochs N]
#
# data/listening/README.md tells what each stage does. About five hours on two cores, three of them training. It can be
# interrupted and run again: what is done is not done twice.
#
#   --out DIR         where everything goes (default: listening)
#   --sakura FOLDER   a checkout of https://github.com/ckyang1124/SAKURA: real recordings for training and for the table
#   --rows N          questions asked about each real recording (default: 4)
#   --epochs N        times that each row is trained on (default: configs/listening.py's)
#
# ENVIRONMENT names another Python environment than .venv, PYTHON the Python to make it with.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
stages=9

# Has the language model write rows about clips: MORE holds further flags of `desta-jax construct`.
write_rows() {
    local metadata=$1 source=$2 per_clip=$3 to=$4
    "$desta" construct --metadata "$metadata" --source "data/listening/$source.toml" --model "$out/model" --out "$to" \
        --instructions data/listening/instructions --rows_per_clip "$per_clip" --several_clips 0 --transcripts 0.5 \
        --temperature 0 --max_new_tokens 64 --batch_size 64 --faithful --leave_out "$held_out" "${@:5}"
}

out=listening sakura='' rows=4 epochs=''
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit
        ;;
    --out | --sakura | --rows | --epochs)
        (($# > 1)) || refuse "$1 needs a value"
        declare "${1#--}=$2"
        shift
        ;;
    --*=*)
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
        continue
        ;;
    *) refuse "there is no argument $1" ;;
    esac
    shift
done
[[ -n $out ]] || refuse "--out needs a folder"
[[ $rows =~ ^[1-9][0-9]*$ ]] || refuse "--rows must be a number, not '$rows'"
[[ -z $epochs || $epochs =~ ^[1-9][0-9]*$ ]] || refuse "--epochs must be a number, not '$epochs'"
[[ -z $sakura || -d $sakura/data ]] || refuse "$sakura is no checkout of SAKURA: it has no folder data"

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
[[ -z $sakura ]] || sakura=$(cd "$sakura" && pwd)
cd "$repository"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} TRANSFORMERS_NO_ADVISORY_WARNINGS=1
environment=${ENVIRONMENT:-.venv}
trap farewell EXIT
# Whole kinds of instruction that are never trained on; and questions that so small a model answers at random.
held_out="role,scene,reply,format: style,format: data,attribute: true or false"
# All but the questions about one value that is heard: what hearing is learned from.
not_heard="attribute,clips,content,describe,format,music,quality,reasoning,reply,role,scene,sound,speaker,text task"
not_heard+=",hear: describe,hear: language guess,hear: gender guess,hear: emotion guess"

stage "The Python environment $environment"
launch/environment.sh "$environment" launch/requirements.lock
python=$environment/bin/python
desta=$environment/bin/desta-jax

stage "The models"
"$python" launch/real_models.py "$out/models"
if [[ -d $out/model ]]; then
    echo "$out/model is there"
else
    "$desta" convert --llm "$out/models/smollm2-135m-instruct" --encoder "$out/models/whisper-base" --out "$out/model"
fi

stage "The corpus"
"$python" data/listening/corpus/make.py --out "$out/corpus" ${sakura:+--sakura "$sakura"}

stage "Transcripts"
"$python" data/listening/corpus/transcribe.py --corpus "$out/corpus" --model "$out/model"

stage "Rows"
clips=$out/corpus/train
for attribute in language gender emotion; do
    if [[ -s $clips/hear_$attribute.jsonl ]]; then
        write_rows "$clips/hear_$attribute.jsonl" speech 6 "$out/rows/hear_$attribute" --transcripts 0 \
            --leave_out "$not_heard"
    fi
done
write_rows "$clips/recorded.jsonl" speech "$rows" "$out/rows/recorded"
write_rows "$clips/synthesised.jsonl" speech 1 "$out/rows/synthesised"
for kind in dialogue sound music; do
    write_rows "$clips/$kind.jsonl" "$kind" 1 "$out/rows/$kind"
done
write_rows "$out/corpus/test/speech.jsonl" speech 1 "$out/rows/validation" --limit 160

stage "Records"
shopt -s nullglob
training=("$out"/rows/{hear_*,recorded,synthesised,dialogue,sound,music}/rows-*.jsonl)
"$desta" records --manifest "${training[@]}" --audio_root "$out/corpus/audio" --name listening --split train \
    --out "$out/records/train"
"$desta" records --manifest "$out"/rows/validation/rows-*.jsonl --audio_root "$out/corpus/audio" --name listening \
    --split validation --shards 1 --out "$out/records/validation"

stage "Training"
"$desta" train --config configs/listening.py --workdir "$out/run" --config.model.checkpoint="$out/model" \
    --config.data.train="$out/records/train" --config.data.validation="$out/records/validation" \
    ${epochs:+--config.train.epochs="$epochs"}

stage "The adapter"
if [[ -d $out/adapter ]]; then
    echo "$out/adapter is there"
else
    "$desta" export --workdir "$out/run" --out "$out/adapter"
fi

stage "The table"
"$python" data/listening/table/table.py --corpus "$out/corpus" --model "$out/model" --adapter "self=$out/adapter" \
    ${sakura:+--sakura "$sakura"} --out "$out/table"
