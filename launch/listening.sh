#!/usr/bin/env bash
# Makes a small model that hears, on this machine, from its own words: corpus, rows, training, adapter and table.
#
#   launch/listening.sh --sakura FOLDER [--out DIR] [--sources NAME,...] [--lessons N,N,N]
#                       [--compare N [--writer WHERE [--writer_model NAME]]] [--further N] [--rows N]
#
# data/listening/README.md tells what each stage does. An estimated three and a half hours on two cores, two of them
# training. It can be interrupted and run again: what is done is not done twice.
#
#   --sakura FOLDER   a checkout of https://github.com/ckyang1124/SAKURA: real recordings for training and for the table
#   --out DIR         where everything goes (default: listening)
#   --sources NAME,...  of the corpus (default: all of them, which needs Linux on x86-64, Python 3.11 or 3.12 and a
#                     mirror of Debian; the lessons need "sakura" alone)
#   --lessons N,...   steps of three lessons: a few questions about language, sex of the voice and emotion; hundreds of
#                     them, with clips as other microphones and rooms would have recorded them; and requests of other
#                     kinds among them; the adapter is the mean of the last two, where the last counts twice
#                     (default: 400,400,320)
#   --compare N       N further steps on short answers, each time from that adapter, on the same clips and questions: on
#                     the model's own answers and on bare values ("male"); with a table of both (default: 0, none)
#   --writer WHERE    and on another language model's answers: a folder as Hugging Face has it, or an OpenAI-compatible
#                     endpoint, up to /v1; all of them then learn from the questions that both models answered
#   --writer_model NAME  of the model at that endpoint
#   --further N       steps on rows of every kind about every clip (default: 0, which leaves them out)
#   --rows N          questions about each real recording in that one (default: 4)
#
# ENVIRONMENT names another Python environment than .venv, PYTHON the Python to make it with.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || refuse "bash 4.4 or newer is needed, this is $BASH_VERSION"

# Has a language model write rows about clips; what follows are further flags of `desta-jax construct`. It reads as it
# will in training, by a CPU's instructions for bfloat16: in two thirds of the time.
write_rows() {
    local metadata=$1 source=$2 questions=$3 rows_per_clip=$4 to=$5
    JAX_DEFAULT_MATMUL_PRECISION=bfloat16 "$desta" construct --metadata "$metadata" --source "data/listening/$source.toml" --model "$out/model" --out "$to" \
        --instructions "data/listening/$questions" --rows_per_clip "$rows_per_clip" --several_clips 0 --transcripts 0.5 \
        --temperature 0 --max_new_tokens 64 --batch_size 64 --faithful --leave_out "$held_out" "${@:6}"
}

# The rows NAME of the lessons, written to a folder: requests of other kinds, or short answers about one attribute.
write_lesson() {
    local name=$1 to=$2 metadata=$clips/hear_${1#first_}.jsonl questions=instructions tokens=12 left_out=$not_heard
    case $name in
    kinds) metadata=$clips/real.jsonl tokens=96 left_out="$held_out,hear,content,text task,clips" ;;
    first_*) questions=first_questions ;;
    *) left_out+=,$not_asked ;;
    esac
    write_rows "$metadata" speech "$questions" "${per_clip[$name]}" "$to" --transcripts 0 --max_new_tokens "$tokens" \
        --leave_out "$left_out" "${@:3}"
}

write_records() {
    "$desta" records --manifest "${@:3}" --audio_root "$out/corpus/audio" --name listening --split "$1" --out "$2/$1"
}

# Versions of the rows NAME in a folder, with their clips varied, beside them.
vary_rows() {
    "$python" data/listening/corpus/vary.py --corpus "$out/corpus" --rows "$1/$2" --out "$1/${2}_varied" \
        --versions "${versions[$2]}"
}

# The models as one folder; what follows are further flags of `desta-jax convert`, of which the last counts.
convert_to() {
    unless_there "$1" "$desta" convert --llm "$out/models/smollm2-135m-instruct" \
        --encoder "$out/models/whisper-base" --out "$1" "${@:2}"
}

# Trains RUN from MODEL so many steps on records of FOLDER drawn so often, "NAME=WEIGHT ...".
train_from() {
    local each folders='' weights=''
    for each in $5; do
        folders+="'$4/${each%=*}',"
        weights+="${each#*=},"
    done
    "$desta" train --config configs/listening.py --config.model.checkpoint="$1" --workdir "$2" \
        --config.train.steps="$3" --config.data.train="($folders)" --config.data.weights="($weights)" "${@:6}"
}

# The same in $out/NAME, from what the run before has learned (`runs` remembers them); the first, from the models.
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

export_to() {
    unless_there "$2" "$desta" export --workdir "$1" --out "$2"
}

# The table of some adapters, to a folder.
tabulate() {
    "$python" data/listening/table/table.py --corpus "$out/corpus" --model "$out/model" --sakura "$sakura" \
        --transcripts none --out "$@"
}

out=listening sakura='' sources='' lessons=400,400,320 compare=0 writer='' writer_model='' further=0 rows=4
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit
        ;;
    --out | --sakura | --sources | --lessons | --compare | --writer | --writer_model | --further | --rows)
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
[[ $lessons =~ ^[1-9][0-9]*(,[1-9][0-9]*){2}$ ]] || refuse "--lessons must be three numbers above 0, not '$lessons'"
[[ $rows =~ ^[1-9][0-9]*$ ]] || refuse "--rows must be a number above 0, not '$rows'"
[[ $further =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--further must be a number, not '$further'"
[[ $compare =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--compare must be a number, not '$compare'"
at_endpoint=''
[[ $writer != http*://* ]] || at_endpoint=yes
[[ ${at_endpoint:+yes} == "${writer_model:+yes}" ]] || refuse "--writer_model goes with an endpoint, and that with it"
if [[ $writer ]]; then
    ((compare)) || refuse "--writer goes with --compare"
    [[ $at_endpoint || -f $writer/config.json ]] ||
        refuse "--writer must be a folder with a model's config.json, or an endpoint's address"
fi
stages=$((10 + (further ? 2 : 0) + (compare ? 2 : 0)))
[[ -n $sakura ]] || refuse "--sakura must be given: hearing is learned from its recordings"
[[ ,${sources:-sakura}, == *,sakura,* ]] || refuse "--sources must have sakura: hearing is learned from it"
[[ -d $sakura/data ]] || refuse "$sakura is no checkout of SAKURA: it has no folder data"

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
sakura=$(cd "$sakura" && pwd)
[[ $out != *[\',]* ]] || refuse "--out must be a folder without ' and , in its path, not $out"
[[ -z $writer || $at_endpoint ]] || writer=$(cd "$writer" && pwd)
cd "$repository"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} TRANSFORMERS_NO_ADVISORY_WARNINGS=1
environment=${ENVIRONMENT:-.venv}
trap farewell EXIT
# Whole kinds of instruction that are never trained on; and questions that so small a model answers at random.
held_out="role,scene,reply,reasoning,describe: briefly,format: style,format: data,attribute: true or false"
held_out+=",content: continue,text task: meaning,sound: what" # as data/listening/table/divergence.py asks
# All but the questions about what is heard; and those of them that take no value for an answer.
not_heard="attribute,clips,content,describe,format,music,quality,reasoning,reply,role,scene,sound,speaker,text task"
not_asked="hear: describe,hear: language guess,hear: gender guess,hear: emotion guess"
lesson_rows=({first_,}{language,gender,emotion} kinds)
# What each lesson draws from, and how often.
taught=(
    "first_language=8 first_gender=6 first_emotion=4"
    "language=5 language_varied=5 gender=4 gender_varied=12 emotion=3 emotion_varied=3 first_gender_varied=4 first_emotion=2"
    "language=4 language_varied=4 gender=3 gender_varied=9 first_gender_varied=3 emotion=3 emotion_varied=4 kinds=8"
)
compared=$(sed -E 's/ (first_[a-z_]+|kinds)=[0-9]+//g' <<<"${taught[-1]}") # by all writers: short answers
# Rows about each clip: the fewer clips, the more; and versions of each row, with its clip varied.
declare -A per_clip=([first_language]=2 [first_gender]=2 [first_emotion]=2 [language]=2 [gender]=4 [emotion]=6 [kinds]=3)
declare -A versions=([language]=2 [first_gender]=2 [gender]=4 [emotion]=3)

stage "The Python environment $environment"
launch/environment.sh "$environment" launch/requirements.lock
python=$environment/bin/python
desta=$environment/bin/desta-jax

stage "The models"
"$python" launch/real_models.py "$out/models"
convert_to "$out/model"

stage "The corpus"
"$python" data/listening/corpus/make.py --out "$out/corpus" --sakura "$sakura" ${sources:+--sources "$sources"}

stage "Rows"
clips=$out/corpus/train
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
learned=$(basename "${runs[-1]}")
last=${runs[-1]}_adapter
export_to "${runs[-1]}" "$last"
"$python" data/listening/average.py --adapter "${runs[-2]}_adapter" "$last" "$last" --out "$out/adapter" \
    --dtype bfloat16 --overwrite

stage "The table"
trained=$(IFS=, && echo "${runs[*]}")
tabulate "$out/table/$learned" --adapter own="$out/adapter" --trained own="$trained"

if ((compare)); then
    stage "Other answers to the same questions"
    name=$writer${writer_model:+_$writer_model} # whole: another place's model of the same name is another writer
    to=$out/compared/$learned${name:+_${name//[!A-Za-z0-9._-]/_}}
    whose=(own labels)
    if [[ $writer ]]; then
        whose+=(foreign)
        written_by=(--endpoint "$writer" --endpoint_model "$writer_model")
        if [[ ! $at_endpoint ]]; then
            convert_to "$to/writer" --llm "$writer"
            written_by=(--model "$to/writer")
        fi
    fi
    for name in language gender emotion; do
        if [[ $writer ]]; then
            write_lesson "$name" "$to/rows/foreign_all/$name" "${written_by[@]}"
            "$python" data/listening/corpus/common.py --rows "$out/rows/$name" "$to/rows/foreign_all/$name" \
                --out "$to/rows/own/$name" "$to/rows/foreign/$name"
        else
            mkdir -p "$to/rows/own/$name"
            cp "$out/rows/$name"/rows-*.jsonl "$to/rows/own/$name"
        fi
        "$python" data/listening/corpus/label.py --rows "$to/rows/own/$name" --out "$to/rows/labels/$name"
    done
    convert_to "$to/model" --adapter "$out/adapter"
    adapters=() trained_in=()
    for each in "${whose[@]}"; do
        run=$to/${each}_$compare
        for name in language gender emotion; do
            vary_rows "$to/rows/$each" "$name"
            write_records "$name" "$to/records/$each" "$to/rows/$each/$name"/rows-*.jsonl
            write_records "${name}_varied" "$to/records/$each" "$to/rows/$each/${name}_varied"/rows-*.jsonl
        done
        train_from "$to/model" "$run" "$compare" "$to/records/$each" "$compared"
        export_to "$run" "${run}_adapter"
        adapters+=("$each=${run}_adapter")
        trained_in+=("$each=$trained,$run")
    done

    stage "The table of all answers"
    tabulate "$to/table_$compare" --adapter "${adapters[@]}" --trained "${trained_in[@]}"
fi
