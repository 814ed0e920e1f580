#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster: from nothing to a complete run and back. See README.md beside this file.

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<USAGE
launch/gke.sh VERB FLAGS

  run      create or reuse the cluster and one TPU node pool a slice, submit the run as a JobSet, follow the log until
           the run is complete, then delete the node pools. The JobSet restarts the run by itself after preemptions;
           start this again at any time: it goes on where it was.
  status   the cluster, its node pools, the JobSet and its pods
  logs     the end of the first pod's log
  stop     delete the JobSet: the trainers save and end. Its node pools shrink to nothing when idle
  down     delete the JobSet and the run's node pools, with --with_cluster also the cluster; confirm what is left

Flags (run needs the first seven that are not in brackets; the other verbs --project, --zone and --name)
$COMMON_FLAGS
  --cluster NAME        of the GKE cluster, created if there is none [desta-jax]
  --with_cluster        at the end, delete the cluster too, where no other run has node pools in it: it costs a little
                        even without TPUs
  --image IMAGE         of the pods: any with Python 3.11 and pip [$image]
  --jobset_version V    of the JobSet controller to install [$jobset_version]
  --pool_flag FLAG      passed on to \`gcloud container node-pools create\`, repeat for several

Exit code: 0 complete, 1 gave up after errors, or a person deleted the JobSet, 2 wrong inputs (nothing was created),
130 interrupted here. Of down: 0 confirmed, 1 not, or other runs use the cluster.
USAGE
}

cluster=desta-jax image=python:3.11 jobset_version=v0.12.0 with_cluster=no pool_flags=()

own_flag() {
  case $3:$1 in
    switch:--with_cluster) with_cluster=yes ;;
    value:--cluster) cluster=$2 ;;
    value:--image) image=$2 ;;
    value:--jobset_version) jobset_version=$2 ;;
    value:--pool_flag) pool_flags+=("$2") ;;
    *) return 1 ;;
  esac
}

place=() in_cluster=() # --zone and --project; those and --cluster
assumed_cluster="" assumed_pools="" assumed_jobset="" # what a dry run takes the cloud to answer
pools="" other_pools="" why_kept="" errors=0 tpus_may_cost=no cluster_may_cost=no

# --- the cluster ---------------------------------------------------------------------------------------------------

# Puts the cluster's state in `cluster_state`: RUNNING and so on, ABSENT, or UNKNOWN if the cloud does not answer.
look_at_cluster() {
  local found_name found_state
  if ! query "$assumed_cluster" gcloud container clusters list "${place[@]}" "--format=value(name,status)"; then
    cluster_state=UNKNOWN
    return
  fi
  cluster_state=ABSENT
  while read -r found_name found_state; do
    [[ $found_name != "$cluster" ]] || cluster_state=$found_state
  done <<<"$answer"
}

ensure_cluster() {
  local looks
  for ((looks = 0; looks <= patience; looks++)); do
    look_at_cluster
    say "cluster $cluster: $cluster_state"
    case $cluster_state in
      RUNNING | RECONCILING) use_cluster && return ;;
      ABSENT)
        # A small pool of CPU nodes for the JobSet controller; the buckets are mounted by the FUSE driver, as the
        # pods' service account (workload identity).
        cluster_may_cost=yes
        run gcloud container clusters create "$cluster" "${place[@]}" --machine-type=e2-standard-4 --num-nodes=1 \
          "--workload-pool=$project.svc.id.goog" --addons=GcsFuseCsiDriver || give_up "the cluster could not be created"
        assumed_cluster="$cluster RUNNING"
        ;;
      ERROR | DEGRADED) die "cluster $cluster is in state $cluster_state: see https://console.cloud.google.com/kubernetes" ;;
    esac
    pause
  done
  die "cluster $cluster did not come up (last state: $cluster_state)"
}

use_cluster() {
  run gcloud container clusters get-credentials "$cluster" "${place[@]}"
}

# kubectl on this cluster, whatever the user's current one is.
kube=()
name_context() { kube=(kubectl "--context=gke_${project}_${zone}_$cluster" --namespace=default); }

ensure_jobset_controller() {
  local manifests=https://github.com/kubernetes-sigs/jobset/releases/download/$jobset_version/manifests.yaml
  run "${kube[@]:0:2}" apply --server-side --force-conflicts -f "$manifests"
  run "${kube[@]:0:2}" --namespace=jobset-system rollout status deployment/jobset-controller-manager --timeout=600s
}

# The pods' service account may write the work directory's bucket and read the others.
grant_buckets() {
  local bucket role roles member
  member="principal://iam.googleapis.com/projects/$project_number/locations/global/workloadIdentityPools/$project.svc.id.goog/subject/ns/default/sa/desta-jax"
  for bucket in "${buckets[@]}"; do
    # Checkpoints ask for the bucket itself too, which legacyBucketReader allows.
    roles=(roles/storage.objectViewer)
    [[ $bucket != "$(bucket_of "$workdir")" ]] || roles=(roles/storage.objectUser roles/storage.legacyBucketReader)
    for role in "${roles[@]}"; do
      run gcloud storage buckets add-iam-policy-binding "gs://$bucket" "--member=$member" "--role=$role" \
        --format=none || die "cannot let the pods use gs://$bucket: you need roles/storage.admin on it"
    done
  done
}

# --- node pools: one slice each ------------------------------------------------------------------------------------

# Puts this run's node pools in `pools`, one line each: NAME,STATE,MACHINE,SPOT,TOPOLOGY, and the names of the others in
# `other_pools`, without the one that every cluster has. Fails if the cloud does not answer.
look_at_pools() {
  local columns="name,status,config.machineType,config.spot,placementPolicy.tpuTopology"
  query "$assumed_pools" gcloud container node-pools list "${in_cluster[@]}" "--format=csv[no-heading]($columns)" ||
    return 1
  pools=$(grep -E "^$name-[0-9]+," <<<"$answer" || true)
  other_pools=$(awk -F , -v name="$name" 'NF && $1 != "default-pool" && $1 !~ "^" name "-[0-9]+$" {print $1}' <<<"$answer")
}

# Pools start empty and grow when the JobSet's pods ask for them; idle ones shrink to nothing again. So the run waits
# for capacity in the cluster's own queue, and a forgotten pool does not cost.
ensure_pools() {
  local index pool pool_state
  look_at_pools || return 1
  check_pools
  for ((index = 0; index < slices; index++)); do
    pool=$name-$index
    pool_state=$(awk -F , -v pool="$pool" '$1 == pool {print $2}' <<<"$pools")
    if [[ $pool_state == ERROR ]]; then
      delete_pool "$pool" && pool_state=""
    fi
    [[ -n $pool_state ]] || create_pool "$pool" || return 1
  done
}

# One left by an earlier run would never get the pods of this one, or at another price.
check_pools() {
  local pool machine found_spot found_topology
  while IFS=, read -r pool _ machine found_spot found_topology; do
    [[ -n $machine ]] || continue
    if [[ ${found_spot,,} == true ]]; then found_spot=yes; else found_spot=no; fi
    ((hosts > 1)) || found_topology=$gke_topology # a pool of one host has none
    [[ "$machine $found_topology $found_spot" == "$gke_machine $gke_topology $spot" ]] ||
      die "node pool $pool has $machine machines, topology $found_topology, spot $found_spot, and not $gke_machine," \
        "$gke_topology, $spot: take another --name, or run down first"
  done <<<"$pools"
}

create_pool() {
  local command=(gcloud container node-pools create "$1" "${in_cluster[@]}" "--node-locations=$zone"
    "--machine-type=$gke_machine" --num-nodes=0 --enable-autoscaling --min-nodes=0 "--max-nodes=$hosts"
    "--node-labels=desta-jax-run=$name" "--scopes=gke-default,storage-full")
  # A pool of several hosts is one slice; a pool of one host takes no topology.
  ((hosts == 1)) || command+=("--tpu-topology=$gke_topology")
  [[ $spot == no ]] || command+=(--spot)
  tpus_may_cost=yes
  run "${command[@]}" "${pool_flags[@]}" && assumed_pools+="$1,RUNNING,$gke_machine,${spot/yes/true},$gke_topology"$'\n'
}

delete_pool() { run gcloud container node-pools delete "$1" "${in_cluster[@]}" --quiet; }

# --- the JobSet ----------------------------------------------------------------------------------------------------

# A JSON string, which is a YAML string too; with $ doubled, since Kubernetes takes $(NAME) for a variable of its own.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//\$/\$\$}"
}

write_manifest() {
  local text bucket mounts="" volumes="" index=0 unpack train key value
  local archive
  archive=$(mounted "$source_uri")
  unpack="mkdir -p ~/$WORKER_ROOT/source && tar -xzf $archive -C ~/$WORKER_ROOT/source"
  train="exec bash ~/$WORKER_ROOT/source/launch/worker.sh $(shell_words pod "$source_name" "${train_words[@]}")"
  for bucket in "${buckets[@]}"; do
    mounts+="                    - {name: bucket-$index, mountPath: $MOUNT_ROOT/$bucket, readOnly: true}"$'\n'
    volumes+="                - name: bucket-$index"$'\n'
    volumes+="                  csi: {driver: gcsfuse.csi.storage.gke.io, readOnly: true, volumeAttributes: {bucketName: $bucket, mountOptions: implicit-dirs}}"$'\n'
    index=$((index + 1))
  done
  text=$(<"$repository/launch/gke.yaml")
  while IFS='=' read -r key value; do
    text=${text//@$key@/"$value"}
  done <<VALUES
NAME=$name
RUN_ID=$run_id
MAX_RESTARTS=$((max_errors - 1))
SLICES=$slices
HOSTS=$hosts
CHIPS_PER_HOST=$chips_per_host
EXIT_INTERRUPTED=$EXIT_INTERRUPTED
GKE_ACCELERATOR=$gke_accelerator
GKE_TOPOLOGY=$gke_topology
IMAGE=$image
COMMAND=[bash, -c, $(quoted "$unpack && $train")]
VALUES
  text=${text//@MOUNTS@/"${mounts%$'\n'}"}
  text=${text//@VOLUMES@/"${volumes%$'\n'}"}
  manifest=${TMPDIR:-/tmp}/desta_jax-$name.jobset.yaml
  printf '%s\n' "$text" >"$manifest"
  say "the JobSet is in $manifest"
}

# Puts the JobSet's end in `terminal` (Completed, Failed, RUNNING, ABSENT, UNKNOWN), its restarts in `restarts` and
# `counted_restarts`, and the run that it is in `found_run`.
look_at_jobset() {
  local template='{.metadata.labels.desta-jax-run-id} {.status.restarts} {.status.restartsCountTowardsMax} {.status.terminalState}'
  terminal=UNKNOWN restarts=0 counted_restarts=0 found_run=""
  query "$assumed_jobset" "${kube[@]}" get jobset "$name" --ignore-not-found "-o=jsonpath=$template" || return 0
  read -r found_run restarts counted_restarts terminal <<<"${answer:-}"
  if [[ -z $answer ]]; then
    terminal=ABSENT
  elif [[ ! $counted_restarts =~ ^[0-9]+$ ]]; then
    # A count of zero is left out by the API.
    terminal=$counted_restarts counted_restarts=0
  fi
  terminal=${terminal:-RUNNING} restarts=${restarts:-0}
}

submit() {
  run "${kube[@]}" apply -f "$manifest" && assumed_jobset="$run_id 0 0 Completed"
}

delete_jobset() { run "${kube[@]}" delete jobset "$name" --ignore-not-found --wait=true --timeout=600s; }

# Prints what the first pod has logged since the last look.
show_new_log() {
  local now words
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  words=("${kube[@]}" logs --container=train --ignore-errors
    "--selector=jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0")
  if [[ -z $log_since ]]; then words+=(--tail=200); else words+=(--tail=-1 "--since-time=$log_since"); fi
  query "" "${words[@]}" 2>/dev/null || return 0
  [[ -z $answer ]] || printf '%s\n' "$answer" >&2
  log_since=$now
}

leave_alone() {
  say "The cluster does not answer. The JobSet runs on by itself; the same command again follows it."
  exit 1
}

# Follows the JobSet to its end; `terminal` says which.
follow() {
  local last="" unanswered=0
  log_since=""
  while true; do
    show_new_log
    look_at_jobset
    [[ "$terminal $restarts" == "$last" ]] ||
      say "JobSet $name: $terminal, $restarts restarts, $counted_restarts of them after errors"
    last="$terminal $restarts"
    case $terminal in
      Completed | Failed | ABSENT) return ;;
      UNKNOWN) ((++unanswered <= patience)) || leave_alone ;;
      *) unanswered=0 ;;
    esac
    pause
  done
}

# --- verbs ---------------------------------------------------------------------------------------------------------

check_slices() {
  ((slices == 1 || hosts > 1)) || die "--slices $slices of --topology $topology: GKE joins only slices of several hosts"
}

name_run() {
  run_id=$(printf '%s\n' "$workdir" "${train_words[@]}" | cksum | cut -d ' ' -f 1)
}

look_for_costs() {
  look_at_cluster
  [[ $cluster_state == ABSENT ]] || cluster_may_cost=yes
}

verb_run() {
  check_run_locally
  check_slices
  name_run
  check_run_in_cloud
  leave_if_complete
  upload_source
  ensure_cluster
  ensure_jobset_controller
  grant_buckets
  write_manifest
  look_at_jobset
  has_progressed || true
  start_or_join
  follow
  # The JobSet itself forgives nothing.
  while [[ $terminal == Failed ]] && has_progressed; do
    say "the JobSet failed, but the run got on to step $saved_step: submitting it again"
    if ! { delete_jobset && submit; }; then give_up "the cluster did not accept the JobSet"; fi
    follow
  done
  case $terminal in
    Completed)
      mark_complete
      say "The run in $workdir is complete."
      ;;
    Failed) give_up "the JobSet failed: too many errors" ;;
    ABSENT)
      leave "the JobSet $name was deleted by somebody else (stop, or down). Nothing more is deleted from here; node" \
        "pools that are left shrink to nothing when idle."
      ;;
  esac
  if [[ $keep == no ]]; then tear_down; fi
}

start_or_join() {
  case $terminal in
    RUNNING | Completed)
      [[ $found_run == "$run_id" ]] || die "the JobSet $name trains something else (another workdir, config or" \
        "override): take another --name, or end that run first (stop)"
      tpus_may_cost=yes
      say "the JobSet is there already ($terminal); following it"
      return
      ;;
    Failed) delete_jobset ;; # of an earlier launch: try again
    UNKNOWN) die "the cluster does not answer" ;;
  esac
  until ensure_pools; do
    errors=$((errors + 1))
    ((errors < max_errors)) || give_up "no node pools"
    pause
  done
  submit || give_up "the cluster did not accept the JobSet"
}

give_up() {
  say "giving up: $1"
  if [[ $keep == no ]]; then tear_down; fi
  exit 1
}

# With the cluster, other runs would lose their TPUs: it stays, and only what is this run's is deleted.
keep_cluster() {
  with_cluster=no
  why_kept="it is not deleted while it has node pools of others (${other_pools//$'\n'/, })"
  say "$cluster stays: $why_kept. End those runs first (a pool is named RUN-NUMBER: launch/gke.sh down --name RUN)," \
    "then run down --with_cluster again; whoever needs none of them deletes all at once:" \
    "gcloud container clusters delete $cluster ${place[*]}"
}

# Deletes what the run has, and looks until the cloud says that it is gone.
tear_down() {
  local looks jobset_deleted=no
  for ((looks = 0; looks <= patience; looks++)); do
    look_at_cluster
    case $cluster_state:$with_cluster in
      UNKNOWN:*) ;;
      ABSENT:*)
        tpus_may_cost=no cluster_may_cost=no
        say "There is no cluster $cluster in $zone: nothing of it costs. Buckets do, by what they hold."
        return
        ;;
      *:yes)
        if look_at_pools; then
          if [[ -n $other_pools ]]; then keep_cluster && looks=-1 && continue; fi
          run gcloud container clusters delete "$cluster" "${place[@]}" --quiet && assumed_cluster=""
        fi
        ;;
      *:no)
        if [[ $jobset_deleted == no ]] && use_cluster && delete_jobset; then jobset_deleted=yes; fi
        if look_at_pools && [[ -z $pools ]]; then
          tpus_may_cost=no
          say "No TPU node pool of $name is left: its TPUs cost nothing now. The cluster $cluster itself, with its CPU" \
            "node, goes on costing; ${why_kept:-add --with_cluster to delete it}. Buckets cost by what they hold."
          return
        fi
        delete_pools
        ;;
    esac
    pause
  done
  say "COULD NOT CONFIRM that $name in $zone is gone. It may still cost: look at" \
    "https://console.cloud.google.com/kubernetes and run this script's down again."
  exit 1
}

delete_pools() {
  local pool
  while IFS=, read -r pool _; do
    [[ -z $pool ]] || delete_pool "$pool" || true
  done <<<"$pools"
  assumed_pools=""
}

warn_of_costs() {
  local code=$?
  [[ $tpus_may_cost == no || $dry_run == yes ]] ||
    say "note: the TPUs of $name may be running, and costing. To go on: the same command again. To end it:" \
      "launch/gke.sh down --project $project --zone $zone --name $name --cluster $cluster"
  [[ $tpus_may_cost == yes || $cluster_may_cost == no || $dry_run == yes ]] ||
    say "note: the cluster $cluster is there, and its CPU node costs. To end it:" \
      "launch/gke.sh down --project $project --zone $zone --name $name --cluster $cluster --with_cluster"
  exit "$code"
}

verb_down() {
  tear_down
  [[ -z $why_kept ]] || exit 1
}

verb_status() {
  look_at_cluster
  echo "cluster $cluster: $cluster_state"
  [[ $cluster_state != ABSENT && $cluster_state != UNKNOWN ]] || return 0
  look_at_pools && printf 'node pools (name, state, machine, spot, topology):\n%s\n' "${pools:-none}"
  use_cluster
  look_at_jobset
  echo "JobSet $name: $terminal, $restarts restarts, $counted_restarts of them after errors"
  query "" "${kube[@]}" get pods "--selector=jobset.sigs.k8s.io/jobset-name=$name" -o=wide && echo "$answer"
}

verb_logs() {
  use_cluster
  log_since=""
  show_new_log
}

parse_flags own_flag "$@"
check_place
need_tool kubectl "gcloud components install kubectl"
need_tool gke-gcloud-auth-plugin "gcloud components install gke-gcloud-auth-plugin"
place=("--zone=$zone" "--project=$project")
in_cluster=("--cluster=$cluster" "${place[@]}")
[[ $verb == run ]] || assumed_cluster="$cluster RUNNING" assumed_pools="$name-0,RUNNING"
name_context
trap warn_of_costs EXIT
trap 'exit 130' INT TERM
case $verb in
  run) verb_run ;;
  status) verb_status ;;
  logs) verb_logs ;;
  stop) use_cluster && delete_jobset ;;
  down) verb_down ;;
  *) die "no such verb: $verb; --help lists them" ;;
esac
