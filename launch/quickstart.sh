#!/usr/bin/env bash
# Trains an adapter from end to end on this machine's CPU, with real small models and audible speech.
#
#   launch/quickstart.sh [--out DIR] [--steps N] [--from_scratch]
#                                                    SmolLM2-135M-Instruct and Whisper base, a few minutes on two cores
#   launch/quickstart.sh --micro [--out DIR]         random micro models, about a minute, nothing to download
#
# It makes the Python environment .venv, fetches the models, has eSpeak NG speak some clips, converts, asks the adapter
# that comes with the project (data/listening/adapter) about a recorded voice, makes records, trains on from there,
# exports, reads the export back, and asks it about a clip that was held out. It can be interrupted and run again: what
# is done is not done twice. Other steps, or another adapter to start from, need another DIR.
#
#   --out DIR     where everything goes (default: quickstart)
#   --steps N     training steps (default: the config's, configs/smol.py or configs/micro.py)
#   --from_scratch  train a fresh adapter instead
#   --micro       random micro models in place of real ones
#
# ENVIRONMENT names another Python environment than .venv, PYTHON the Python to make it with.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
stages=9

name=smol out=quickstart steps="" adapter=data/listening/adapter
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit
        ;;
    --micro) name=micro ;;
    --from_scratch) adapter= ;;
    --out | --steps)
        (($# > 1)) || refuse "$1 needs a value"
        if [[ $1 == --out ]]; then out=$2; else steps=$2; fi
        shift
        ;;
    --out=*) out=${1#*=} ;;
    --steps=*) steps=${1#*=} ;;
    *) refuse "there is no argument $1" ;;
    esac
    shift
done
[[ -n $out ]] || refuse "--out needs a folder"
[[ -z $steps || $steps =~ ^[1-9][0-9]*$ ]] || refuse "--steps must be a number of steps, not '$steps'"

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
[[ $name != micro ]] || adapter=
here=$out/$name
[[ $adapter || $name == micro ]] || here+=-from-scratch
cd "$repository"
# What is done stays as it is, so that it must have been done with the same steps and from the same adapter.
settings="steps ${steps:-as in the config}, ${adapter:+adapter of checksum $(cat "$adapter"/*.{json,safetensors} | cksum)}"
settings=${settings%, }
noted=$(cat "$here/settings.txt" 2>/dev/null) || [[ -d $here/model ]] || noted=$settings
[[ $noted == "$settings" ]] ||
    refuse "$here was made otherwise (${noted:-nothing says how}; now $settings). Choose another --out, or remove it"
mkdir -p "$here"
echo "$settings" >"$here/settings.txt"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} TRANSFORMERS_NO_ADVISORY_WARNINGS=1
environment=${ENVIRONMENT:-.venv}
trap farewell EXIT

stage "The Python environment $environment"
launch/environment.sh "$environment" launch/requirements.lock
python=$environment/bin/python
desta=$environment/bin/desta-jax

stage "The models"
if [[ $name == micro ]]; then
    "$python" launch/micro_models.py "$out/models"
    llm=micro-llama encoder=micro-whisper languages=(en-us es) sentences=2
else
    "$python" launch/real_models.py "$out/models"
    llm=smollm2-135m-instruct encoder=whisper-base languages=(en-us es fr de it) sentences=6
fi

stage "Spoken clips"
"$python" launch/spoken_clips.py "$here/clips" --languages "${languages[@]}" --sentences "$sentences"

stage "Convert the models"
unless_there "$here/model" "$desta" convert --llm "$out/models/$llm" --encoder "$out/models/$encoder" \
    ${adapter:+--adapter "$adapter"} --out "$here/model"

stage "Listen"
if [[ $adapter ]]; then
    for question in "What language is spoken in this clip?" "Is the speaker a man or a woman?"; do
        echo "> $question"
        "$desta" generate --model "$here/model" --audio data/listening/clip.flac --text " " --prompt "$question" \
            --temperature 0 --max_new_tokens 48
    done
    echo "(asked about data/listening/clip.flac, a recording that the adapter was not trained on)"
else
    echo "nothing to listen with yet: the adapter is made from scratch"
fi

stage "Make records"
for split in train validation; do
    "$desta" records --manifest "$here/clips/$split.jsonl" --audio_root "$here/clips/audio" \
        --name spoken_clips --split "$split" --shards 2 --out "$here/records/$split"
done

stage "Train"
if [[ -d $here/adapter ]]; then
    echo "$here/adapter is there: trained and exported"
else
    "$desta" train --config "configs/$name.py" --workdir "$here/run" --config.model.checkpoint="$here/model" \
        --config.data.train="$here/records/train" --config.data.validation="$here/records/validation" \
        ${steps:+--config.train.steps="$steps"} ${adapter:+--config.optimizer.peak_learning_rate=1e-4}
fi

stage "Export for PyTorch"
unless_there "$here/adapter" "$desta" export --workdir "$here/run" --out "$here/adapter"

stage "Read the export back and ask it about a held-out clip"
"$python" launch/account.py "$here"
printf '\nAll of it took %d s.\n' "$SECONDS"
