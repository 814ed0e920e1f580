# shellcheck shell=bash
# What listening.sh and compare_answers.sh share: what the lessons teach, and the steps from models to a table. Both set
# `out`, where everything goes, and `sakura`, the recordings.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || refuse "bash 4.4 or newer is needed, this is $BASH_VERSION"

# Whole kinds of instruction that are never trained on; and questions that so small a model answers at random.
held_out="role,scene,reply,reasoning,describe: briefly,format: style,format: data,attribute: true or false"
held_out+=",content: continue,text task: meaning,sound: what" # as data/listening/table/divergence.py asks
# All but the questions about what is heard; and those of them that take no value for an answer.
not_heard="attribute,clips,content,describe,format,music,quality,reasoning,reply,role,scene,sound,speaker,text task"
not_asked="hear: describe,hear: language guess,hear: gender guess,hear: emotion guess"
# What each lesson draws from, and how often.
# shellcheck disable=SC2034
taught=(
    "first_language=8 first_gender=6 first_emotion=4"
    "language=5 language_varied=5 gender=4 gender_varied=12 emotion=3 emotion_varied=3 first_gender_varied=4 first_emotion=2"
    "language=4 language_varied=4 gender=3 gender_varied=9 first_gender_varied=3 emotion=3 emotion_varied=4 kinds=8"
)
# Rows about each clip: the fewer clips, the more; and versions of each row, with its clip varied.
declare -A per_clip=([first_language]=2 [first_gender]=2 [first_emotion]=2 [language]=2 [gender]=4 [emotion]=6 [kinds]=3)
declare -A versions=([language]=2 [first_gender]=2 [gender]=4 [emotion]=3)

# Sets the variables named in its first argument by `--NAME VALUE` and `--NAME=VALUE`.
read_arguments() {
    local names=$1
    shift
    while (($#)); do
        case $1 in
        --help | -h)
            usage
            exit
            ;;
        --*=*)
            set -- "${1%%=*}" "${1#*=}" "${@:2}"
            continue
            ;;
        esac
        [[ $1 == --* && " $names " == *" ${1#--} "* ]] || refuse "there is no argument $1"
        (($# > 1)) || refuse "$1 needs a value"
        declare -g "${1#--}=$2"
        shift 2
    done
}

# Refuses places that cannot be used, and goes to the repository, with the others as whole paths.
find_places() {
    [[ $out ]] || refuse "--out needs a folder"
    [[ $sakura ]] || refuse "--sakura must be given: hearing is learned from its recordings"
    [[ -d $sakura/data ]] || refuse "$sakura is no checkout of SAKURA: it has no folder data"
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    sakura=$(cd "$sakura" && pwd)
    [[ $out != *[\',]* ]] || refuse "--out must be a folder without ' and , in its path, not $out"
    cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} TRANSFORMERS_NO_ADVISORY_WARNINGS=1
    trap farewell EXIT
}

# Two stages: the programs and the models.
prepare() {
    local environment=${ENVIRONMENT:-.venv}
    stage "The Python environment $environment"
    launch/environment.sh "$environment" launch/requirements.lock
    python=$environment/bin/python
    desta=$environment/bin/desta-jax

    stage "The models"
    "$python" launch/real_models.py "$out/models"
    convert_to "$out/model"
}

# What follows are further flags of data/listening/corpus/make.py.
make_corpus() {
    "$python" data/listening/corpus/make.py --out "$out/corpus" --sakura "$sakura" "$@"
}

# The models as one folder; what follows are further flags of `desta-jax convert`, of which the last counts.
convert_to() {
    unless_there "$1" "$desta" convert --llm "$out/models/smollm2-135m-instruct" \
        --encoder "$out/models/whisper-base" --out "$1" "${@:2}"
}

# Has a language model write rows about clips; what follows are further flags of `desta-jax construct`. It reads as it
# will in training, by a CPU's instructions for bfloat16: in two thirds of the time.
write_rows() {
    local metadata=$1 source=$2 questions=$3 rows_per_clip=$4 to=$5
    JAX_DEFAULT_MATMUL_PRECISION=bfloat16 "$desta" construct --metadata "$metadata" \
        --source "data/listening/$source.toml" --model "$out/model" --out "$to" \
        --instructions "data/listening/$questions" --rows_per_clip "$rows_per_clip" --several_clips 0 --transcripts 0.5 \
        --temperature 0 --max_new_tokens 64 --batch_size 64 --faithful --leave_out "$held_out" "${@:6}"
}

# The rows NAME of the lessons, written to a folder: requests of other kinds, or short answers about one attribute.
write_lesson() {
    local name=$1 to=$2 metadata=$out/corpus/train/hear_${1#first_}.jsonl
    local questions=instructions tokens=12 left_out=$not_heard
    case $name in
    kinds) metadata=$out/corpus/train/real.jsonl tokens=96 left_out="$held_out,hear,content,text task,clips" ;;
    first_*) questions=first_questions ;;
    *) left_out+=,$not_asked ;;
    esac
    write_rows "$metadata" speech "$questions" "${per_clip[$name]}" "$to" --transcripts 0 --max_new_tokens "$tokens" \
        --leave_out "$left_out" "${@:3}"
}

# Versions of the rows NAME in a folder, with their clips varied, beside them.
vary_rows() {
    "$python" data/listening/corpus/vary.py --corpus "$out/corpus" --rows "$1/$2" --out "$1/${2}_varied" \
        --versions "${versions[$2]}"
}

# Records NAME in a folder, of files of rows.
write_records() {
    "$desta" records --manifest "${@:3}" --audio_root "$out/corpus/audio" --name listening --split "$1" --out "$2/$1"
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

export_to() {
    unless_there "$2" "$desta" export --workdir "$1" --out "$2"
}

# The table of some adapters, to a folder.
tabulate() {
    "$python" data/listening/table/table.py --corpus "$out/corpus" --model "$out/model" --sakura "$sakura" \
        --transcripts none --out "$@"
}
