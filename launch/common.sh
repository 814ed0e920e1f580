# shellcheck shell=bash
# What tpu_vm.sh and gke.sh share: flags, checks that cost nothing, the packed checkout, and running or only
# printing commands. Sourced, never run.
# shellcheck disable=SC2034  # many of these variables are read by the script that sources this file

set -euo pipefail

# The trainer's exit codes. Anything else is an error of the program.
readonly EXIT_COMPLETE=0
readonly EXIT_INTERRUPTED=75 # stopped by a signal after saving: to be started again
readonly WORKER_ROOT=desta_jax_run # on a worker, under the home directory
readonly MOUNT_ROOT=/gcs           # on a worker: the bucket B is seen at /gcs/B

readonly MOST_UNTRACKED=100        # MB of files beside the committed ones

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
verb=""
project="" zone="" name="" topology="" accelerator_type="" config="" workdir="" model=""
records=() overrides=()
slices=1 spot=no keep=no dry_run=no
poll_seconds=30 patience=10 max_errors=3
saved_step=0 # of the newest checkpoint seen

say() { printf '%s\n' "$*" >&2; }

# Wrong inputs end with 2: nothing was created, nothing was spent.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || die "bash 4.4 or newer is needed, this is $BASH_VERSION"

# The arguments as one line that a shell reads back as the same arguments.
shell_words() {
  local word line=""
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# Runs a command that changes something; a dry run prints it on stdout in its place.
run() {
  if [[ $dry_run == yes ]]; then
    shell_words "$@"
  else
    say "+ $(shell_words "$@")"
    "$@"
  fi
}

# query ASSUMED COMMAND...: asks the cloud and puts the output in `answer`. A dry run prints the command and goes on
# as if the output had been ASSUMED. Returns the command's status.
query() {
  local assumed=$1
  shift
  if [[ $dry_run == yes ]]; then
    shell_words "$@"
    answer=$assumed
  else
    answer=$("$@")
  fi
}

pause() { [[ $dry_run == yes ]] || sleep "$poll_seconds"; }

# What a person stopped or deleted stays so.
leave() {
  say "leaving: $*"
  exit 1
}

# --- flags ---------------------------------------------------------------------------------------------------------

readonly COMMON_FLAGS="\
  --project ID          Google Cloud project that pays
  --zone ZONE           for example us-east5-b; the TPUs, and best also the buckets, are there
  --name NAME           of this run's cloud resources; the same name finds them again
  --topology NAME       v4-8 ... v4-2048, v5p-8 ... v5p-2048 (the number counts cores, two a chip),
                        v5e-1 ... v5e-256, v6e-1 ... v6e-256 (the number counts chips)
  --slices N            slices of that topology, joined over the data-centre network [1]
  --spot                spot capacity: cheaper, may be taken away at any time, the run resumes by itself
  --config FILE         the run's config, a file of this checkout (configs/...)
  --workdir gs://...    the run's work directory: checkpoints, metrics, logs
  --records gs://...    folder written by \`desta-jax records\`; repeat for several. Replaces data.train
  --model gs://...      folder written by \`desta-jax convert\`. Replaces model.checkpoint
  --config.KEY=VALUE    any key of the config, as for \`desta-jax train\`
  --keep                leave the TPUs running at the end (they go on costing)
  --max_errors N        errors of the program or the cloud before giving up; preemptions do not count [3]
  --poll_seconds N      between two looks at the run [30]
  --patience N          looks at something that does not answer or does not end, before acting [10]
  --dry_run             print the exact commands of a smooth run, on stdout, and call nothing
  --help"

# parse_flags EXTRA_SETTER ARGUMENTS...: EXTRA_SETTER FLAG VALUE takes the script's own flags, and fails on others.
parse_flags() {
  local extra_setter=$1 flag value
  shift
  (($#)) || { usage >&2 && exit 2; }
  case $1 in
    --help | -h | help) usage && exit 0 ;;
    -*) die "the first argument is a verb, got $1; --help lists them" ;;
  esac
  verb=$1
  shift
  while (($#)); do
    flag=${1%%=*}
    case $flag in
      --help | -h) usage && exit 0 ;;
      --spot | --keep | --dry_run) check_switch "$1" ;;&
      --spot) spot=yes && shift && continue ;;
      --keep) keep=yes && shift && continue ;;
      --dry_run) dry_run=yes && shift && continue ;;
      --config.*)
        [[ $1 == *=* ]] || die "$1: write it as $1=VALUE"
        overrides+=("$1") && shift && continue
        ;;
    esac
    if "$extra_setter" "$flag" "" switch; then check_switch "$1" && shift && continue; fi
    value=${2:-}
    [[ $1 != *=* ]] || value=${1#*=}
    set_flag "$flag" "$value" || "$extra_setter" "$flag" "$value" value || die "no such flag: $flag; --help lists them"
    [[ $1 == *=* ]] || { (($# >= 2)) && shift; } || die "$flag needs a value"
    shift
  done
}

check_switch() { [[ $1 != *=* ]] || die "$1: ${1%%=*} takes no value: write it alone, or leave it out"; }

set_flag() {
  case $1 in
    --project) project=$2 ;;
    --zone) zone=$2 ;;
    --name) name=$2 ;;
    --topology) topology=$2 ;;
    --slices) slices=$2 ;;
    --config) config=$2 ;;
    --workdir) workdir=${2%/} ;;
    --records) records+=("${2%/}") ;;
    --model) model=${2%/} ;;
    --max_errors) max_errors=$2 ;;
    --poll_seconds) poll_seconds=$2 ;;
    --patience) patience=$2 ;;
    *) return 1 ;;
  esac
}

# --- topologies ----------------------------------------------------------------------------------------------------

# Fills accelerator_type (Cloud TPU's name), hosts, chips_per_host (of one slice), runtime_version (TPU VM),
# gke_accelerator, gke_machine and gke_topology from --topology.
describe_topology() {
  local generation=${topology%-*} size=${topology##*-} machine
  [[ $generation == v5litepod ]] && generation=v5e
  case $generation:$size in
    v5e:1 | v6e:1) gke_topology=1x1 ;;
    v5e:4 | v6e:4) gke_topology=2x2 ;;
    v5e:8 | v6e:8) gke_topology=2x4 ;;
    v5e:16 | v6e:16) gke_topology=4x4 ;;
    v5e:32 | v6e:32) gke_topology=4x8 ;;
    v5e:64 | v6e:64) gke_topology=8x8 ;;
    v5e:128 | v6e:128) gke_topology=8x16 ;;
    v5e:256 | v6e:256) gke_topology=16x16 ;;
    v4:8 | v5p:8) gke_topology=2x2x1 ;;
    v4:16 | v5p:16) gke_topology=2x2x2 ;;
    v4:32 | v5p:32) gke_topology=2x2x4 ;;
    v4:64 | v5p:64) gke_topology=2x4x4 ;;
    v4:128 | v5p:128) gke_topology=4x4x4 ;;
    v4:256 | v5p:256) gke_topology=4x4x8 ;;
    v4:512 | v5p:512) gke_topology=4x8x8 ;;
    v4:1024 | v5p:1024) gke_topology=8x8x8 ;;
    v4:2048 | v5p:2048) gke_topology=8x8x16 ;;
    *) die "--topology $topology: no such slice; v5e and v6e take 1, 4, 8, 16, 32, 64, 128 or 256 chips" \
      "(v6e-16), v4 and v5p take 8, 16, 32 ... 2048 cores (v5p-128)" ;;
  esac
  case $generation in
    v4) accelerator_type=$topology runtime_version=tpu-ubuntu2204-base gke_accelerator=tpu-v4-podslice machine=ct4p-hightpu ;;
    v5p) accelerator_type=$topology runtime_version=v2-alpha-tpuv5 gke_accelerator=tpu-v5p-slice machine=ct5p-hightpu ;;
    v5e) accelerator_type=v5litepod-$size runtime_version=v2-alpha-tpuv5-lite gke_accelerator=tpu-v5-lite-podslice machine=ct5lp-hightpu ;;
    v6e) accelerator_type=$topology runtime_version=v2-alpha-tpuv6e gke_accelerator=tpu-v6e-slice machine=ct6e-standard ;;
  esac
  case $generation in
    v4 | v5p) chips_per_host=4 hosts=$((size / 8)) ;; # two cores a chip
    *) chips_per_host=$((size <= 8 ? size : 4)) hosts=$((size <= 8 ? 1 : size / 4)) ;;
  esac
  gke_machine=$machine-${chips_per_host}t
}

# --- checks --------------------------------------------------------------------------------------------------------

need_tool() { command -v "$1" >/dev/null || die "$1 is not installed: $2"; }

need_flag() { [[ -n ${!1} ]] || die "--$1 is needed; --help explains it"; }

# Leaves it in decimal: the shell would take 010 for eight.
need_number() {
  [[ ${!1} =~ ^[0-9]+$ && $((10#${!1})) -ge $2 ]] || die "--$1 ${!1}: a whole number, at least $2, is needed"
  printf -v "$1" %d "$((10#${!1}))"
}

bucket_of() {
  local path=${1#gs://}
  printf '%s\n' "${path%%/*}"
}

# The path at which a worker sees gs://BUCKET/FOLDER.
mounted() { printf '%s\n' "$MOUNT_ROOT/${1#gs://}"; }

check_gs_path() {
  [[ $2 =~ ^gs://[a-z0-9][a-z0-9._-]+/.+$ ]] || die "$1 $2: a folder in a bucket is needed, gs://BUCKET/FOLDER"
  [[ $2 != *[[:space:]]* ]] || die "$1 $2: no spaces"
}

# Where the resources are: enough for status, logs and down.
check_place() {
  need_flag project && need_flag zone && need_flag name
  [[ $name =~ ^[a-z][-a-z0-9]{0,30}[a-z0-9]$ ]] ||
    die "--name $name: 2 to 32 lower-case letters, digits and dashes, a letter first"
  [[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-(ai[0-9]+)?[a-z]$ ]] || die "--zone $zone: a zone is needed, such as us-east5-b (not a region)"
  need_number poll_seconds 0
  need_number patience 1
  need_number max_errors 1
  need_number slices 1
  need_tool gcloud "https://cloud.google.com/sdk/docs/install"
}

# What a run needs, as far as this machine alone can tell.
check_run_locally() {
  local path
  check_place
  need_flag topology && describe_topology
  need_flag config && need_flag workdir
  need_tool git "the scripts send this checkout to the workers"
  check_gs_path --workdir "$workdir"
  [[ -z $model ]] || check_gs_path --model "$model"
  for path in "${records[@]}"; do check_gs_path --records "$path"; done
  check_config
  check_lock
  pack_name
}

check_config() {
  local full
  [[ -f $config ]] || die "--config $config: no such file here; see configs/"
  full=$(cd "$(dirname "$config")" && pwd)/$(basename "$config")
  [[ $full == "$repository"/* ]] || die "--config $config: must be a file of this checkout ($repository), which is what the workers get"
  config=${full#"$repository"/}
  train_arguments
  find_folders
  check_config_with_python
  keep_folders
}

# Finds what training would refuse (wrong keys, no model or records, a batch or mesh that does not fit the chips) before
# the TPUs do, where this machine's Python can import the config module.
check_config_with_python() {
  local python status=0 message
  python=$(command -v python3) || { say "note: no python3 here, so the config's keys are not checked" && return; }
  message=$(cd "$repository" && "$python" - "$slices" $((hosts * chips_per_host)) "${train_words[@]}" 2>&1 <<'PYTHON'
import sys
try:
    from desta_jax.config import check_rows, load_config, mesh_sizes
except ImportError:
    sys.exit(3)
try:
    slices, chips = map(int, sys.argv[1:3])
    _, file, _, _, *overrides = sys.argv[3:]
    config = load_config(file, [override.removeprefix("--config.") for override in overrides])
    sizes = mesh_sizes(**config.mesh, devices=slices * chips)
    check_rows(config, sizes["data"] * sizes["fsdp"])
    for refused, reason in (
        (not config.model.checkpoint, "no model.checkpoint: --model is needed"),
        (not config.data.train, "no data.train: --records is needed"),
        (sizes["data"] % slices, f"mesh.data: {sizes['data']} must be a multiple of the {slices} slices"),
        (config.log.wandb_project, "log.wandb_project: the workers have no wandb; leave it empty, and look at the work "
         "directory with TensorBoard"),
        (config.evaluate.benchmarks, "evaluate.benchmarks: answers go to a local disk, not a bucket: leave it empty"),
    ):
        if refused:
            raise ValueError(reason)
    folders = {"model.checkpoint": (config.model.checkpoint,)}
    folders |= {f"data.{key}": config.data[key] for key in ("train", "validation")}
    for key, paths in folders.items():
        for path in paths:
            print("folder", key, path)
    if slices * chips > 1 and sizes["fsdp"] == sizes["tensor"] == 1:
        print("note: mesh.fsdp and mesh.tensor are 1, so each chip holds the whole model: see `desta-jax plan`")
except (ValueError, FileNotFoundError) as error:
    sys.exit(f"{error}")
PYTHON
  ) || status=$?
  case $status in
    0)
      read_folders=$(grep '^folder ' <<<"$message" || true)
      message=$(grep -v '^folder ' <<<"$message" || true)
      [[ -z $message ]] || say "$message"
      ;;
    3) say "note: desta_jax does not import here, so the config's keys are not checked" ;;
    *) die "--config $config: $message" ;;
  esac
}

# Puts the folders that the arguments of the trainer name in `read_folders`, lines "folder KEY PATH": without Python
# that is all that is known of them.
find_folders() {
  local word key value path
  local -A values=()
  for word in "${train_words[@]}"; do
    key=${word#--config.} && key=${key%%=*}
    case $key in model.checkpoint | data.train | data.validation) values[$key]=${word#*=} ;; esac
  done
  read_folders=""
  for key in model.checkpoint data.train data.validation; do
    value=${values[$key]:-}
    case $value in
      # A Python tuple, list or string; all else is taken as it is.
      [\(\[\'\"]*) value=$(grep -oE "'[^']*'|\"[^\"]*\"" <<<"$value" | sed 's/^.//; s/.$//' || true) ;;
    esac
    while read -r path; do read_folders+="folder $key $path"$'\n'; done <<<"$value"
  done
}

# Puts what training will read in `folders`, lines "KEY gs://...", and the buckets that the workers must see in `buckets`.
keep_folders() {
  local key path pattern="^($MOUNT_ROOT/|gs://)[a-z0-9][a-z0-9._-]+/.+\$" all
  all=("$(bucket_of "$workdir")") folders=()
  while read -r _ key path; do
    [[ -n $path ]] || continue
    [[ $path =~ $pattern ]] || die "$key $path: not in a bucket, so the workers would not find it: copy it to one," \
      "and write $MOUNT_ROOT/BUCKET/FOLDER"
    path=${path%/} && path=${path#"$MOUNT_ROOT/"}
    folders+=("$key gs://${path#gs://}")
    all+=("$(bucket_of "$path")")
  done <<<"$read_folders"
  mapfile -t buckets < <(printf '%s\n' "${all[@]}" | sort -u)
}

check_lock() {
  local lock=$repository/launch/requirements.lock
  [[ -f $lock ]] || die "launch/requirements.lock is missing: the workers install from it"
  grep -q '^jax==' "$lock" || die "launch/requirements.lock names no jax version (a line jax==...)"
}

# What only the cloud can tell; all of it reads, none of it costs.
check_run_in_cloud() {
  local bucket region=${zone%-*} key folder
  query account gcloud auth list --filter=status:ACTIVE "--format=value(account)" || die "gcloud does not work, see above"
  [[ -n $answer ]] || die "gcloud is not logged in: gcloud auth login"
  query PROJECT_NUMBER gcloud projects describe "$project" "--format=value(projectNumber)" ||
    die "--project $project: not found, or not yours"
  project_number=$answer
  query "$accelerator_type" gcloud compute tpus accelerator-types describe "$accelerator_type" \
    "--zone=$zone" "--project=$project" "--format=value(type)" ||
    die "$accelerator_type is not offered in $zone, or the TPU API is off" \
      "(gcloud services enable tpu.googleapis.com --project=$project). What is offered there:" \
      "gcloud compute tpus accelerator-types list --zone=$zone --project=$project"
  for bucket in "${buckets[@]}"; do
    query "${region^^}" gcloud storage buckets describe "gs://$bucket" "--format=value(location)" ||
      die "gs://$bucket: not found, or not readable by you"
    [[ ${answer^^} == "${region^^}" ]] ||
      say "warning: gs://$bucket is in $answer, the TPUs are in $region: reading across regions is slower and is billed"
  done
  for folder in "${folders[@]}"; do
    read -r key folder <<<"$folder"
    case $key:$folder in
      model.checkpoint:*) need_object "$key" "$folder" desta_jax.json convert ;;
      *[*?[]*) query "$folder" gcloud storage ls "$folder" || die "$key $folder: no such shards" ;;
      *) need_object "$key" "$folder" index.npz records ;;
    esac
  done
}

# need_object KEY FOLDER FILE VERB: the file that `desta-jax VERB` leaves in its folder.
need_object() {
  query "$2/$3" gcloud storage ls "$2/$3" ||
    die "$1 $2: no $3 there; is it the folder that \`desta-jax $4\` wrote?"
}

# --- the checkout, and the command that the workers run ------------------------------------------------------------

# Names the checkout as it is now, uncommitted changes included: source_name has the commit, whether anything differs
# from it, and the hash of the content. git writes the tree; the user's own index is not touched. A dry run writes the
# tree beside the repository too.
pack_name() {
  local index commit objects="" ignored=no
  git -C "$repository" rev-parse --verify --quiet HEAD >/dev/null || die "$repository is not a git checkout with a commit"
  check_untracked
  if [[ $dry_run == yes ]]; then
    objects=$(mktemp -d)
    GIT_ALTERNATE_OBJECT_DIRECTORIES=$(cd "$repository" && cd "$(git rev-parse --git-path objects)" && pwd)
    GIT_OBJECT_DIRECTORY=$objects
    export GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
  fi
  index=$(mktemp)
  cp "$(git -C "$repository" rev-parse --absolute-git-dir)/index" "$index"
  GIT_INDEX_FILE=$index git -C "$repository" add --all
  source_tree=$(GIT_INDEX_FILE=$index git -C "$repository" write-tree)
  rm -f "$index"
  commit=$(git -C "$repository" rev-parse --short=12 HEAD)
  if [[ $source_tree == "$(git -C "$repository" rev-parse "HEAD^{tree}")" ]]; then
    source_name=source-$commit-${source_tree:0:12}
  else
    source_name=source-$commit-changed-${source_tree:0:12}
    say "note: the checkout differs from commit $commit; the workers get it as it is now"
  fi
  git -C "$repository" cat-file -e "$source_tree:$config" 2>/dev/null || ignored=yes
  [[ -z $objects ]] || rm -rf "$objects"
  unset GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
  [[ $ignored == no ]] || die "--config $config: git ignores this file, so it would not reach the workers"
  source_uri=$workdir/launch/$source_name.tar.gz
}

# A model or records that were written into the checkout would all go to every worker.
check_untracked() {
  local sizes total largest
  sizes=$(cd "$repository" && git ls-files --others --exclude-standard -z | xargs -0 -I {} du -k {} | sort -rn) || true # some may go away
  total=$(awk '{total += $1} END {print int(total / 1024)}' <<<"$sizes")
  largest=$(head -n 1 <<<"$sizes" | cut -f 2)
  ((total <= MOST_UNTRACKED)) || die "$total MB of files in $repository are neither committed nor ignored by git, and" \
    "would go to the workers: move them elsewhere (the largest is $largest)"
}

upload_source() {
  local archive=${TMPDIR:-/tmp}/desta_jax-$source_name.tar.gz
  run git -C "$repository" archive --format=tar.gz "--output=$archive" "$source_tree"
  run gcloud storage cp --no-clobber "$archive" "$source_uri" ||
    die "cannot write to $workdir: your account needs roles/storage.objectUser on the bucket"
}

# Fills train_words, the arguments of `desta-jax train`.
train_arguments() {
  local path list=""
  train_words=(--config "$config" --workdir "$workdir")
  [[ -z $model ]] || train_words+=("--config.model.checkpoint=$(mounted "$model")")
  for path in "${records[@]}"; do list+="'$(mounted "$path")',"; done
  [[ -z $list ]] || train_words+=("--config.data.train=($list)")
  train_words+=("${overrides[@]}")
}

# --- progress ------------------------------------------------------------------------------------------------------

# Notes the newest checkpoint's step in `saved_step`; succeeds if it is newer than the one noted before.
has_progressed() {
  local step
  query "" gcloud storage ls "$workdir/checkpoints/" 2>/dev/null || return 1
  step=$(grep -oE '/[0-9]+/?$' <<<"$answer" | tr -d / | sort -n | tail -n 1) || true
  ((${step:-0} > saved_step)) || return 1
  saved_step=$step
}

# --- the mark of a complete run ------------------------------------------------------------------------------------

# A complete run leaves an object in its work directory, so that a second launch costs nothing.
is_marked_complete() {
  query "" gcloud storage ls "$workdir/launch/complete" 2>/dev/null && [[ -n $answer ]]
}

mark_complete() {
  local note=${TMPDIR:-/tmp}/desta_jax-$name-complete
  printf '%s\n' "$source_name" "$(shell_words desta-jax train "${train_words[@]}")" >"$note"
  run gcloud storage cp "$note" "$workdir/launch/complete" ||
    say "warning: $workdir/launch/complete could not be written: the same command would start the run once more"
}

# look_for_costs, of the script that sources this: says so where TPUs of this name are still there. They may be another
# run's, so they are left.
leave_if_complete() {
  if is_marked_complete; then
    say "The run in $workdir is complete. Another run (more steps, say) takes another --workdir; to begin from this" \
      "adapter: \`desta-jax export --workdir $workdir${model:+ --model $model} --out DIR\`, then" \
      "\`desta-jax convert --adapter DIR\` makes its --model"
    look_for_costs
    exit 0
  fi
}
