#!/usr/bin/env bash
# Makes a small model that hears, on this machine, from its own words: corpus, rows, training, adapter and table.
#
#   launch/listening.sh --sakura FOLDER [--out DIR] [--sources NAME,...] [--lessons N,N,N,N]
#                       [--answers own|labels|foreign] [--writer WHERE [--writer_model NAME]] [--further N] [--rows N]
#
# data/listening/README.md tells what each stage does. An estimated three and a half hours on two cores, two of them
# training. It can be interrupted and run again: what is done is not done twice.
#
#   --sakura FOLDER   a checkout of https://github.com/ckyang1124/SAKURA: real recordings for training and for the table
#   --out DIR         where everything goes (default: listening)
#   --sources NAME,...  of the corpus (default: all of them, which needs Linux on x86-64, Python 3.11 or 3.12 and a
#                     mirror of Debian; the lessons need "sakura" alone)
#   --lessons N,...   steps of four lessons: a few questions about language, sex of the voice and emotion; hundreds of
#                     them, with clips as other microphones and rooms would have recorded them; requests of other
#                     kinds among them; and more of emotion; the adapter is the mean of the last two (default:
#                     360,400,320,300)
#   --answers labels  learn from bare values ("male") in place of the model's own answers, for comparison: the same OUT
#                     then has both adapters (default: own)
#   --answers foreign learn from another language model's answers to the same questions, likewise
#   --writer WHERE    that other model: a folder as Hugging Face has it, or an OpenAI-compatible endpoint, up to /v1;
#                     those of its answers are taken whose question the model itself answered too
#   --writer_model NAME  of the model at that endpoint
#   --further N       steps on rows of every kind about every clip (default: 0, which leaves them out)
#   --rows N          questions about each real recording in that one (default: 4)
#
# ENVIRONMENT names another Python environment than .venv, PYTHON the Python to make it with.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || refuse "bash 4.4 or newer is needed, this is $BASH_VERSION"

# Has a language model write rows about clips; what follows are further flags of `desta-jax construct`.
write_rows() {
    local metadata=$1 source=$2 questions=$3 rows_per_clip=$4 to=$5
    "$desta" construct --metadata "$metadata" --source "data/listening/$source.toml" --model "$out/model" --out "$to" \
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

# The same clips and questions as in the rows NAME, with answers from elsewhere.
answer_otherwise() {
    local rows=$out/rows/$1
    case $answers in
    labels) "$python" data/listening/corpus/label.py --rows "$rows" --out "$rows$by" ;;
    foreign)
        write_lesson "$1" "$rows${by}_all" "${written_by[@]}"
        "$python" data/listening/corpus/common.py --rows "$rows" "$rows${by}_all" --out "$rows${by}_own" "$rows$by"
        ;;
    esac
}

write_records() {
    "$desta" records --manifest "${@:2}" --audio_root "$out/corpus/audio" --name listening --split "$1" \
        --out "$out/records/$1"
}

# The models as one folder; what follows are further flags of `desta-jax convert`, of which the last counts.
convert_to() {
    unless_there "$1" "$desta" convert --llm "$out/models/smollm2-135m-instruct" \
        --encoder "$out/models/whisper-base" --out "$1" "${@:2}"
}

# Trains in $out/NAME (`runs` remembers it) so many steps on rows drawn so often, "ROWS=WEIGHT ...": from the models or,
# after another run, from what that one learned.
train_on() {
    local each folders='' weights=''
    for each in $3; do
        folders+="'$out/records/${each%=*}$by',"
        weights+="${each#*=},"
    done
    if [[ $run ]]; then
        export_to "$run" "${run}_adapter"
        convert_to "${run}_model" --adapter "${run}_adapter"
        model=${run}_model
    fi
    run=$out/$1
    runs+=("$run")
    "$desta" train --config configs/listening.py --config.model.checkpoint="$model" --workdir "$run" \
        --config.train.steps="$2" --config.data.train="($folders)" --config.data.weights="($weights)" "${@:4}"
}

export_to() {
    unless_there "$2" "$desta" export --workdir "$1" --out "$2"
}

out=listening sakura='' sources='' lessons=360,400,320,300 answers=own writer='' writer_model='' further=0 rows=4
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit
        ;;
    --out | --sakura | --sources | --lessons | --answers | --writer | --writer_model | --further | --rows)
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
[[ $lessons =~ ^[1-9][0-9]*(,[1-9][0-9]*){3}$ ]] || refuse "--lessons must be four numbers above 0, not '$lessons'"
[[ $rows =~ ^[1-9][0-9]*$ ]] || refuse "--rows must be a number above 0, not '$rows'"
[[ $further =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--further must be a number, not '$further'"
[[ $answers =~ ^(own|labels|foreign)$ ]] || refuse "--answers must be own, labels or foreign, not '$answers'"
((further == 0)) || [[ $answers == own ]] || refuse "--answers $answers goes without --further"
[[ $answers == foreign || -z $writer ]] || refuse "--writer goes with --answers foreign"
at_endpoint=''
[[ $writer != http*://* ]] || at_endpoint=yes
if [[ $answers == foreign && -z $at_endpoint ]]; then
    [[ -f $writer/config.json ]] ||
        refuse "--answers foreign needs --writer, a folder with a model's config.json or an endpoint's address"
fi
[[ ${at_endpoint:+yes} == "${writer_model:+yes}" ]] || refuse "--writer_model goes with an endpoint, and that with it"
stages=$((further ? 13 : 11))
[[ -n $sakura ]] || refuse "--sakura must be given: hearing is learned from its recordings"
[[ -d $sakura/data ]] || refuse "$sakura is no checkout of SAKURA: it has no folder data"

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
sakura=$(cd "$sakura" && pwd)
[[ $out != *[\',]* ]] || refuse "--out must be a folder without ' and , in its path, not $out"
by='' written_by=() # what tells apart, at a name's end, what comes of other answers; and flags of their writer
[[ $answers == own ]] || by=_$answers
if [[ $at_endpoint ]]; then
    by+=_${writer_model//[!A-Za-z0-9._-]/_}
    written_by=(--endpoint "$writer" --endpoint_model "$writer_model")
elif [[ $writer ]]; then
    writer=$(cd "$writer" && pwd)
    by+=${writer//\//_} # another folder of the same name is another writer
    written_by=(--model "$out/model$by")
fi
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
    "first_language=5 first_gender=6 first_emotion=4"
    "language=3 language_varied=3 gender=4 gender_varied=12 emotion=3 emotion_varied=3 first_gender_varied=4 first_emotion=2"
    "language=3 language_varied=3 gender=2 gender_varied=8 emotion=3 emotion_varied=5 kinds=8"
    "language=2 language_varied=2 gender=2 gender_varied=6 emotion=6 emotion_varied=10 first_emotion=2 kinds=8"
)
if [[ $answers == labels ]]; then # other kinds of request have none
    unset 'lesson_rows[-1]'
    taught=("${taught[@]% kinds=*}")
fi
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
[[ -z $writer || $at_endpoint ]] || convert_to "$out/model$by" --llm "$writer"

stage "The corpus"
"$python" data/listening/corpus/make.py --out "$out/corpus" --sakura "$sakura" ${sources:+--sources "$sources"}

stage "Rows"
clips=$out/corpus/train
for name in "${lesson_rows[@]}"; do
    write_lesson "$name" "$out/rows/$name"
    answer_otherwise "$name"
done
for name in "${!versions[@]}"; do
    "$python" data/listening/corpus/vary.py --corpus "$out/corpus" --rows "$out/rows/$name$by" \
        --out "$out/rows/${name}_varied$by" --versions "${versions[$name]}"
    lesson_rows+=("${name}_varied")
done

stage "Records"
for name in "${lesson_rows[@]}"; do
    write_records "$name$by" "$out/rows/$name$by"/rows-*.jsonl
done

IFS=, read -ra steps <<<"$lessons"
model=$out/model run='' runs=() taught_so_far=lessons$by # a run's name says what it was made by: other lessons are other runs
for lesson in "${!taught[@]}"; do
    stage "Lesson $((lesson + 1))"
    taught_so_far+=_${steps[lesson]}
    train_on "$taught_so_far" "${steps[lesson]}" "${taught[lesson]}"
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
    write_records "every_$rows" "${every[@]}"
    write_records validation "$out"/rows/validation/rows-*.jsonl

    stage "Training on all of them"
    train_on "${taught_so_far}_further_${further}_$rows" "$further" "language=1 gender=1 emotion=1 every_$rows=3" \
        --config.data.validation="$out/records/validation" --config.optimizer.peak_learning_rate=5e-4
fi

stage "The adapter"
export_to "$run" "${run}_adapter"
"$python" data/listening/average.py --adapter "${runs[-2]}_adapter" "${run}_adapter" --out "$out/adapter$by" \
    --dtype bfloat16 --overwrite

stage "The table"
"$python" data/listening/table/table.py --corpus "$out/corpus" --model "$out/model" --adapter "$answers=$out/adapter$by" \
    --trained "$answers=$(IFS=, && echo "${runs[*]}")" --sakura "$sakura" --transcripts none \
    --out "$out/table/$(basename "$run")"
