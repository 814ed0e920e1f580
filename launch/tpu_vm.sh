#!/usr/bin/env bash
# Trains on Cloud TPU VMs: from nothing to a complete run and back to zero TPU cost. See README.md beside this file.

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<USAGE
launch/tpu_vm.sh VERB FLAGS

  run      create or reuse the slice, install, train, follow the log, restart after every preemption until the run
           is complete, then delete the slice. Start it again at any time: it goes on where it was.
  status   the queued resource, the TPU VMs, and the trainer on every worker
  logs     the end of the first worker's log
  stop     ask the trainer to save and end; the slice stays, and goes on costing
  down     delete the slice and confirm that nothing is left

Flags (run needs the first seven that are not in brackets; the other verbs --project, --zone and --name)
$COMMON_FLAGS
  --runtime_version V   of the TPU VM image [that of the generation]
  --create_flag FLAG    passed on to \`gcloud compute tpus queued-resources create\`, repeat for several
  --ssh_user NAME       whose account the trainer has on the workers [yours here]: the same from every machine
  --ssh_flag FLAG       passed on to \`gcloud compute tpus queued-resources ssh\`, repeat for several
  --max_interruptions N restarts after preemptions and other interruptions before giving up [100]

Exit code: 0 complete, 1 gave up after errors, or a person stopped the run or deleted the slice, 2 wrong inputs
(nothing was created), 130 interrupted here. Of stop and down: 0 confirmed, 1 not.
USAGE
}

chosen_runtime="" create_flags=() ssh_user="" ssh_flags=() max_interruptions=100

own_flag() {
  [[ $3 == value ]] || return 1
  case $1 in
    --runtime_version) chosen_runtime=$2 ;;
    --create_flag) create_flags+=("$2") ;;
    --ssh_user) ssh_user=$2 ;;
    --ssh_flag) ssh_flags+=("$2") ;;
    --max_interruptions) max_interruptions=$2 ;;
    *) return 1 ;;
  esac
}

place=()             # --zone and --project
assumed_state=""     # what a dry run takes the slice's state to be
errors=0 interruptions=0 slice_may_cost=no
watching=no          # whether this launcher saw or created the slice, and did not delete it

# --- the slice -----------------------------------------------------------------------------------------------------

# Puts the queued resource's state in `state`, ABSENT if there is none, UNKNOWN if the cloud does not answer.
# A listing, because only a listing tells "there is none" from "no answer".
look_at_slice() {
  local line found_name found_type
  if ! query "$assumed_state" gcloud compute tpus queued-resources list "${place[@]}" \
    "--format=value(name.basename(),state.state,tpu.nodeSpec[0].node.acceleratorType.basename())"; then
    state=UNKNOWN
    return
  fi
  state=ABSENT
  while read -r found_name line found_type; do
    [[ $found_name == "$name" ]] || continue
    state=$line
    [[ -z $accelerator_type || -z $found_type || $found_type == "$accelerator_type" ]] ||
      die "--name $name is a $found_type, not a $accelerator_type: take another name, or run down first"
  done <<<"$answer"
  # A preempted slice stays, SUSPENDED, until somebody deletes it.
  if [[ $watching == yes && $state =~ ^(ABSENT|DELETING)$ ]]; then
    leave "the slice $name was deleted by somebody else"
  fi
}

# Puts this run's TPU VMs in `nodes`, one line each: NAME STATE WORKERS QUEUED_RESOURCE. With runs named aqa and aqa-1,
# only the last tells whose aqa-1 is; where it is not given, the name decides.
look_at_nodes() {
  local assumed="" index
  for ((index = 0; index < slices; index++)); do
    [[ -z $assumed_state ]] || assumed+="$(node_name "$index") READY ${hosts:-1}"$'\n'
  done
  query "$assumed" gcloud compute tpus tpu-vm list "${place[@]}" \
    "--format=value(name.basename(),state,networkEndpoints.len(),queuedResource.basename())" || return 1
  nodes=$(awk -v name="$name" '$1 ~ "^" name "(-[0-9]+)?$" && ($4 == "" || $4 == name)' <<<"$answer")
}

node_name() { if ((slices == 1)); then echo "$name"; else echo "$name-$1"; fi; }

create_slice() {
  local command=(gcloud compute tpus queued-resources create "$name" "${place[@]}"
    "--accelerator-type=$accelerator_type" "--runtime-version=${chosen_runtime:-$runtime_version}")
  if ((slices == 1)); then
    command+=("--node-id=$name")
  else
    command+=("--node-count=$slices" "--node-prefix=$name")
  fi
  [[ $spot == no ]] || command+=(--spot)
  slice_may_cost=yes
  run "${command[@]}" "${create_flags[@]}" && watching=yes assumed_state="$name ACTIVE $accelerator_type"
}

delete_slice() {
  watching=no
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet && assumed_state=""
}

print_failure_reason() {
  query "" gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
    "--format=value(state.failedData.error.message)" && say "the request for $name failed: $answer"
}

# Waits until the slice is ACTIVE; asks for a new one where it is gone. Waiting in the queue costs nothing.
ensure_slice() {
  local unanswered=0 last=""
  while true; do
    look_at_slice
    [[ $state == "$last" ]] || say "slice $name: $state"
    last=$state
    [[ $state == ABSENT ]] || slice_may_cost=yes
    [[ $state =~ ^(ABSENT|DELETING|UNKNOWN)$ ]] || watching=yes
    if [[ $state == UNKNOWN ]]; then
      # A slice that is there trains on by itself, and must not be deleted at the first answer.
      ((++unanswered <= patience)) || { slice_may_cost=yes && leave "gcloud does not answer about $name"; }
    else
      unanswered=0
    fi
    case $state in
      ACTIVE) return ;;
      ABSENT) create_slice || count_error "gcloud did not accept the request for $name" ;;
      SUSPENDED) delete_slice || true ;;
      FAILED)
        print_failure_reason || true
        delete_slice || true
        count_error "the request for $name failed"
        ;;
    esac
    [[ $state == ABSENT ]] || pause
  done
}

# --- the workers ---------------------------------------------------------------------------------------------------

# on_workers NODE WORKER COMMAND_LINE: over ssh. gcloud reaches 64 workers at a time, so no command may wait for
# another worker: the trainer is started detached and looked at, never waited for.
ssh_command() {
  ssh_words=(gcloud compute tpus queued-resources ssh "${ssh_user:+$ssh_user@}$name" "${place[@]}" "--node=$1" "--worker=$2"
    --strict-host-key-checking=no --quiet "${ssh_flags[@]}" "--command=$3")
}

on_all_workers() { ssh_command all all "$1" && run "${ssh_words[@]}"; }

worker_line() { shell_words bash "$WORKER_ROOT/source/launch/worker.sh" "$@"; }

# Counts the slices into `found_slices`, and what the workers say into `expected`, `heard`, and one number a state.
# Before the first installation there is no worker.sh to ask: that worker is absent; or foreign, where another account's
# trainer runs.
look_at_workers() {
  local state_word code id assumed="" index
  heard=0 running=0 complete=0 stopped=0 interrupted=0 failed=0 absent=0 foreign=0 strangers=0 worker_report="" nodes=""
  expected=0 found_slices=0
  look_at_nodes || return 0
  read -r found_slices expected < <(awk 'NF {slices++; n += $3} END {print slices + 0, n + 0}' <<<"$nodes")
  for ((index = 0; index < expected; index++)); do assumed+="desta_jax_worker host$index $assumed_worker"$'\n'; done
  ssh_command all all "$(worker_line status) 2>/dev/null || { pgrep -f 'worker[.]sh supervise' >/dev/null && echo desta_jax_worker \$(hostname) foreign - - || echo desta_jax_worker \$(hostname) absent - -; }"
  query "$assumed" "${ssh_words[@]}" || true # what is missing is seen by counting
  worker_report=$(grep '^desta_jax_worker ' <<<"$answer" || true)
  while read -r _ _ state_word code id; do
    [[ -n $state_word ]] || continue
    heard=$((heard + 1))
    [[ $id == "$run_id" || $state_word =~ ^(absent|foreign)$ ]] || strangers=$((strangers + 1))
    case $state_word:$code in
      running:*) running=$((running + 1)) ;;
      exited:"$EXIT_COMPLETE") complete=$((complete + 1)) ;;
      stopped:*) stopped=$((stopped + 1)) ;;
      exited:"$EXIT_INTERRUPTED" | rebooted:*) interrupted=$((interrupted + 1)) ;;
      absent:*) absent=$((absent + 1)) ;;
      foreign:*) foreign=$((foreign + 1)) ;;
      *) failed=$((failed + 1)) ;;
    esac
  done <<<"$worker_report"
}

# Puts the arguments of `worker.sh start` in `start_words`, and what tells this run from another in `run_id`.
name_run() {
  start_words=("$workdir/launch/logs" "${train_words[@]}")
  run_id=$(printf '%s\n' "${start_words[@]}" | cksum | cut -d ' ' -f 1)
}

# Waits until every worker answers; fails if they do not, or if the slice goes away.
wait_for_workers() {
  local looks
  for ((looks = 0; looks <= patience; looks++)); do
    look_at_workers
    # After an attempt, a slice that is missing is one that went away: another look tells.
    ((found_slices == 0 || found_slices == slices || errors + interruptions > 0)) ||
      die "--name $name has $found_slices slices, not $slices: take another name, or run down first"
    ((heard < expected || expected == 0 || found_slices != slices)) || return 0
    look_at_slice
    [[ $state == ACTIVE || $state == UNKNOWN ]] || return 1
    if is_preempted; then return 1; fi
    pause
  done
  return 1
}

# The nodes can be gone while the queued resource still calls itself ACTIVE.
is_preempted() { grep -qE '[[:space:]](PREEMPTED|TERMINATED)[[:space:]]' <<<"$nodes"; }

install_on_workers() {
  local archive=$WORKER_ROOT/source.tar.gz
  on_all_workers "mkdir -p $WORKER_ROOT && $(shell_words gcloud storage cp "$source_uri" "$archive") && rm -rf $WORKER_ROOT/source && mkdir $WORKER_ROOT/source && tar -xzf $archive -C $WORKER_ROOT/source && $(worker_line setup "$source_name" "${buckets[@]}")"
}

start_on_workers() {
  on_all_workers "$(worker_line start "${start_words[@]}")" && assumed_worker="exited 0 $run_id"
}

# Prints what the first worker's log has beyond line `log_seen`.
show_new_log() {
  local first
  ssh_command 0 0 "$(worker_line log $((log_seen + 1)))"
  query "lines 0" "${ssh_words[@]}" 2>/dev/null || return 0
  first=$(head -n 1 <<<"$answer")
  [[ $first =~ ^lines\ ([0-9]+)$ ]] || return 0
  log_seen=${BASH_REMATCH[1]}
  tail -n +2 <<<"$answer" >&2
}

show_failures() {
  ssh_command all all "$(worker_line failure)"
  query "" "${ssh_words[@]}" 2>/dev/null || true
  [[ -z $answer ]] || head -n 100 <<<"$answer" >&2
}

# Asks every trainer to save and end (`end`, or `stop` where a person wants it), and ends those that do not. A person
# waits for workers that do not answer, too.
end_on_workers() {
  local looks
  on_all_workers "$(worker_line "$1")" || true
  for ((looks = 0; looks < patience; looks++)); do
    look_at_workers
    if have_ended || [[ $1 == end && $running == 0 ]]; then return; fi
    pause
  done
  ((running == 0)) || on_all_workers "$(worker_line kill)" || true
}

# Whether the last look heard every worker, and no trainer runs.
have_ended() { ((expected > 0 && heard >= expected && running == 0)); }

# --- one attempt, and what comes of it -----------------------------------------------------------------------------

# Puts in `verdict`: complete, stopped (by a person), interrupted (to be started again), error, or lost (the slice has to
# be replaced).
follow() {
  local silent=0 uneven=0
  verdict="" log_seen=0
  while true; do
    show_new_log
    look_at_workers
    if ((heard < expected || expected == 0)); then
      look_at_slice
      if [[ $state != ACTIVE && $state != UNKNOWN ]] || is_preempted; then
        verdict=interrupted
        return
      fi
      # Where gcloud does not answer either, nothing is known of the slice, and it trains on by itself.
      [[ $state == UNKNOWN ]] || ((++silent <= patience)) || { verdict=lost && return; }
      pause
      continue
    fi
    silent=0
    if ((running == heard)); then
      uneven=0
    elif ((running > 0)); then
      # Some have ended: the others notice by themselves, in bounded time. If not, they are ended.
      ((++uneven <= patience)) || end_on_workers end
    else
      judge_ended_workers
      return
    fi
    pause
  done
}

judge_ended_workers() {
  show_new_log
  if ((complete == heard)); then
    verdict=complete
  elif ((stopped > 0)); then
    verdict=stopped
  elif ((interrupted > 0 || absent > 0)); then
    # Where one worker was interrupted, the others' errors are its consequence.
    verdict=interrupted
  else
    look_at_slice
    verdict=error
    [[ $state == ACTIVE || $state == UNKNOWN ]] || verdict=interrupted
  fi
}

# An attempt that saved more than the one before it forgives the errors so far: a run of weeks meets a few.
count_error() {
  if has_progressed; then errors=0; fi
  errors=$((errors + 1))
  say "$1 (error $errors; giving up after $max_errors)"
  ((errors < max_errors)) || give_up "too many errors"
  pause
}

count_interruption() {
  interruptions=$((interruptions + 1))
  say "interrupted ($interruptions so far); starting again from the last checkpoint"
  ((interruptions <= max_interruptions)) || give_up "more than $max_interruptions interruptions"
}

give_up() {
  say "giving up: $1"
  if [[ $keep == no ]]; then tear_down; fi
  exit 1
}

# --- verbs ---------------------------------------------------------------------------------------------------------

run_until_complete() {
  while true; do
    ensure_slice
    if wait_for_workers; then
      if ! attempt; then
        look_at_slice
        look_at_nodes || true
        [[ $state != ACTIVE ]] || is_preempted || count_error "installing or starting failed"
        continue
      fi
    else
      verdict=interrupted
      if [[ $state == ACTIVE ]] && ! is_preempted; then verdict=lost; fi
    fi
    act_on_verdict && return
  done
}

# Starts the trainer, or finds it running, and follows it to a verdict. Fails if it cannot be started.
attempt() {
  leave_foreign
  if ((running > 0)); then
    ((strangers == 0)) || die "$name trains something else (another workdir, config or override): take another --name," \
      "or end that run first (stop)"
    say "the trainer is running already; following it (with the code it was started with)"
  elif ((complete == heard && strangers == 0)); then
    verdict=complete
    return
  elif ((stopped > 0 && errors + interruptions > 0)); then # between two attempts; before the first, go on from there
    verdict=stopped
    return
  else
    install_on_workers && start_on_workers || return 1
  fi
  follow
}

# Its mounts and files are closed to us: neither followed nor ended from here.
leave_foreign() {
  ((foreign == 0)) || die "$name is trained by another account on its workers: give the same command from there, or" \
    "here with --ssh_user, that account's name"
}

# Succeeds if the run is complete.
act_on_verdict() {
  case $verdict in
    complete) return 0 ;;
    stopped) leave "the run was stopped" ;;
    interrupted)
      if is_preempted; then delete_slice || true; fi
      count_interruption
      ;;
    error)
      show_failures
      count_error "the trainer ended with an error"
      ;;
    lost)
      say "the slice is ACTIVE but its workers do not answer; replacing it"
      delete_slice || true
      count_error "the slice was lost"
      ;;
  esac
  return 1
}

tear_down() {
  local looks
  watching=no
  for ((looks = 0; looks <= patience; looks++)); do
    look_at_slice
    case $state in
      ABSENT)
        if look_at_nodes && [[ -z $nodes ]]; then
          slice_may_cost=no
          say "Nothing is left of $name in $zone: no queued resource, no TPU VM. TPUs cost nothing now; buckets do," \
            "by what they hold."
          return
        fi
        ;;
      UNKNOWN) ;;
      *) delete_slice || true ;;
    esac
    pause
  done
  say "COULD NOT CONFIRM that $name in $zone is gone. It may still cost: look at" \
    "https://console.cloud.google.com/compute/tpus and run this script's down again."
  exit 1
}

warn_of_costs() {
  local code=$?
  [[ $slice_may_cost == no || $dry_run == yes ]] ||
    say "note: the slice $name may be running, and costing. To go on: the same command again. To end it:" \
      "launch/tpu_vm.sh down --project $project --zone $zone --name $name"
  exit "$code"
}

look_for_costs() {
  look_at_slice
  [[ $state == ABSENT ]] || slice_may_cost=yes
}

verb_run() {
  check_run_locally
  name_run
  check_run_in_cloud
  leave_if_complete
  upload_source
  run_until_complete
  mark_complete
  say "The run in $workdir is complete."
  if [[ $keep == yes ]]; then return; fi
  tear_down
}

verb_status() {
  look_at_slice
  echo "queued resource $name: $state"
  [[ $state == ACTIVE ]] || return 0
  look_at_workers
  printf 'TPU VMs (name, state, workers):\n%s\n' "$nodes"
  printf 'workers: %s expected, %s answer\n%s\n' "$expected" "$heard" "$worker_report"
}

verb_logs() {
  log_seen=0
  show_new_log
}

verb_stop() {
  look_at_slice
  [[ $state != ABSENT ]] || leave "there is no slice $name in $zone, so nothing was stopped"
  slice_may_cost=yes
  look_at_workers
  leave_foreign
  end_on_workers stop
  if ((running > 0)); then look_at_workers; fi # those that had to be killed
  if have_ended; then
    say "every trainer of $name has ended"
    return
  fi
  say "COULD NOT CONFIRM that the trainers of $name in $zone have ended: $expected workers are listed, $heard answer," \
    "$running of them train. Look with this script's status, and run stop again; down deletes the slice."
  exit 1
}

parse_flags own_flag "$@"
check_place
need_number max_interruptions 0
[[ $verb == run ]] || assumed_state="$name ACTIVE"
place=("--zone=$zone" "--project=$project")
run_id="" assumed_worker="absent - -"
trap warn_of_costs EXIT
trap 'exit 130' INT TERM
case $verb in
  run) verb_run ;;
  status) verb_status ;;
  logs) verb_logs ;;
  stop) verb_stop ;;
  down) tear_down ;;
  *) die "no such verb: $verb; --help lists them" ;;
esac
