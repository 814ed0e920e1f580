"""Stands in for gcloud and kubectl: keeps a small cloud in a folder, records every call, fails when told to.

The folder is $STANDIN: `cloud.json` is the state and the script of what is to happen, `calls.jsonl` the calls, `gs/`
the buckets, `hosts/` the home folders of workers whose commands are really run. Runs without site-packages.
"""

import json
import os
import re
import sys

FOLDER = os.environ["STANDIN"]


def main():
    tool = os.path.basename(sys.argv[0])
    words = sys.argv[1:]
    with open(f"{FOLDER}/calls.jsonl", "a") as calls:
        calls.write(json.dumps([tool, *words]) + "\n")
    with open(f"{FOLDER}/cloud.json") as file:
        cloud = json.load(file)
    line = " ".join(words)
    status = 0
    for failure in cloud["failures"]:  # [pattern, how many times, message, after how many calls that went well]
        matches = failure[1] > 0 and re.search(failure[0], line)
        if matches and len(failure) > 3 and failure[3] > 0:
            failure[3] -= 1
        elif matches:
            failure[1] -= 1
            print(failure[2], file=sys.stderr)
            status = 1
            break
    else:
        status = (kubectl if tool == "kubectl" else gcloud)(cloud, words, line)
    with open(f"{FOLDER}/cloud.json.new", "w") as file:
        json.dump(cloud, file)
    os.replace(f"{FOLDER}/cloud.json.new", f"{FOLDER}/cloud.json")
    sys.exit(status)


def gcloud(cloud, words, line):
    for start, answer in {
        "auth list": lambda: print("someone@example.com"),
        "projects describe": lambda: print(cloud["project_number"]),
        "compute tpus accelerator-types describe": lambda: print("type"),
        "storage buckets describe": lambda: print(cloud["location"]),
        "storage buckets add-iam-policy-binding": lambda: None,
        "storage ls": lambda: storage_ls(cloud, words[-1]),
        "storage cp": lambda: storage_cp(words[-2], words[-1]),
        "compute tpus queued-resources list": lambda: list_slice(cloud),
        "compute tpus queued-resources create": lambda: create_slice(cloud, words),
        "compute tpus queued-resources describe": lambda: print("no capacity of that kind"),
        "compute tpus queued-resources delete": lambda: delete_slice(cloud),
        "compute tpus queued-resources ssh": lambda: ssh(cloud, words),
        "compute tpus tpu-vm list": lambda: list_nodes(cloud),
        "container clusters list": lambda: list_cluster(cloud),
        "container clusters create": lambda: cloud.update(cluster=words[3]),
        "container clusters delete": lambda: cloud.update(cluster=None, pools={}),
        "container clusters get-credentials": lambda: None,
        "container node-pools list": lambda: [print(f"{n},{s}") for n, s in cloud["pools"].items()] and None,
        "container node-pools create": lambda: cloud["pools"].update({words[3]: made_pool(words)}),
        "container node-pools delete": lambda: cloud["pools"].pop(words[3]) and None,
    }.items():
        if line.startswith(start):
            return answer() or 0
    print(f"the stand-in knows no such gcloud command: {line}", file=sys.stderr)
    return 2


def flag(words, name):
    return next((word.split("=", 1)[1] for word in words if word.startswith(f"--{name}=")), None)


# --- storage


def local(path):
    return f"{FOLDER}/gs/{path[5:]}" if path.startswith("gs://") else path


def storage_ls(cloud, path):
    if path.endswith("/checkpoints/") and cloud["saved"]:
        print(f"{path}{cloud['saved'].pop(0)}/")
        return 0
    if os.path.exists(local(path)):
        print(path)
        return 0
    print("One or more URLs matched no objects.", file=sys.stderr)
    return 1


def storage_cp(source, target):
    import shutil  # where needed: a test makes dozens of calls, and most of a call's time is imports

    os.makedirs(os.path.dirname(local(target)) or ".", exist_ok=True)
    shutil.copyfile(local(source), local(target))


# --- queued resources and TPU VMs


def list_slice(cloud):
    slice_ = cloud["slice"]
    print("another\tACTIVE\tv5litepod-8")
    if slice_:
        if len(slice_["states"]) > 1:
            state = slice_["states"].pop(0)
        else:
            state = slice_["states"][0]
        slice_["now"] = state
        if state == "ABSENT":
            cloud["slice"] = None
            return
        print(f"{slice_['name']}\t{state}\t{slice_['type']}")


def create_slice(cloud, words):
    if cloud["slice"]:
        print("ALREADY_EXISTS", file=sys.stderr)
        return 1
    states = cloud["creations"].pop(0) if cloud["creations"] else ["ACTIVE"]
    count = int(flag(words, "node-count") or 1)
    name = words[4]
    nodes = [name] if count == 1 else [f"{name}-{index}" for index in range(count)]
    cloud["slice"] = {"name": name, "type": flag(words, "accelerator-type"), "states": states, "nodes": nodes}
    cloud["workers"] = []
    cloud["node_state"] = "READY"


def delete_slice(cloud):
    if not cloud["slice"]:
        print("NOT_FOUND", file=sys.stderr)
        return 1
    if cloud["stuck_deletions"]:
        cloud["stuck_deletions"] -= 1
    else:
        cloud["slice"] = None


def list_nodes(cloud):
    print("another\tREADY\t1\tanother")
    print("aqa-7\tREADY\t4\taqa-7")  # of another run, whose name begins like this one's
    if cloud["slice"] and cloud["slice"].get("now") == "ACTIVE":
        for node in cloud["slice"]["nodes"]:
            print(f"{node}\t{cloud['node_state']}\t{cloud['hosts']}\t{cloud['slice']['name']}")


# --- workers: either scripted, or real commands in a home folder each


def ssh(cloud, words):
    if cloud["node_state"] != "READY" or cloud["slice"]["now"] != "ACTIVE":
        print("the TPU is in an unusable state", file=sys.stderr)
        return 1
    # gcloud splits the command at spaces and ssh joins it again.
    command = " ".join(flag(words, "command").split(" "))
    count = len(cloud["slice"]["nodes"]) * cloud["hosts"]
    indexes = range(count) if flag(words, "worker") == "all" else [int(flag(words, "worker"))]
    if cloud["real_workers"]:
        return max(run_on_host(index, command) for index in indexes)
    match = re.search(r"worker\.sh (\w+)", command)
    return scripted_worker(cloud, match.group(1), command, count)


def run_on_host(index, command):
    import subprocess

    home = f"{FOLDER}/hosts/{index}"
    os.makedirs(home, exist_ok=True)
    path = f"{FOLDER}/host_bin:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": home, "PATH": path}
    return subprocess.run(["bash", "-c", command], cwd=home, env=environment).returncode


def scripted_worker(cloud, verb, command, count):
    """cloud["attempts"]: for each start of the trainer, what the workers say at each look (the last one stays).

    A look is "STATE CODE" for all workers, a list of them, or what happens to them: "silent", "preempted".
    """
    if verb == "setup" and cloud.get("preempted_setups"):
        cloud["preempted_setups"] -= 1
        cloud["node_state"] = "PREEMPTED"
        return 1
    if verb == "start":
        import shlex

        cloud["workers"] = cloud["attempts"].pop(0)
        cloud["run_id"] = cksum(shlex.split(command)[3:])
    elif verb == "status":
        looks = cloud["workers"] or ["absent -"]
        look = looks.pop(0) if len(looks) > 1 else looks[0]
        if look == "preempted":
            cloud["slice"]["states"] = ["SUSPENDING", "SUSPENDED"]
            cloud["workers"] = []
            return 1
        if look == "nodes preempted":
            cloud["node_state"] = "PREEMPTED"
            return 1
        if look == "deleted":
            cloud["slice"]["states"] = ["DELETING", "ABSENT"]
            return 1
        if look == "a slice gone":
            del cloud["slice"]["nodes"][1:]
            look, cloud["workers"], count = "exited 75", ["exited 75"], cloud["hosts"]
        if look == "silent":
            return 1
        for index, state in enumerate(look if isinstance(look, list) else [look] * count):
            run_id = "-" if state.startswith(("absent", "foreign")) else cloud.get("run_id", "-")
            print(f"desta_jax_worker host{index} {state} {run_id}")
    elif verb == "log":
        print(cloud["log"])
    elif verb == "failure":
        print("host0: ValueError: the reason")
    return 0


def cksum(words):
    import subprocess

    text = "".join(f"{word}\n" for word in words)
    return subprocess.run(["cksum"], input=text, capture_output=True, text=True).stdout.split()[0]


# --- GKE


def list_cluster(cloud):
    if cloud["cluster"]:
        print(f"{cloud['cluster']}\t{cloud['cluster_state']}")


def made_pool(words):
    spot = "True" if "--spot" in words else ""
    return ",".join(["RUNNING", flag(words, "machine-type"), spot, flag(words, "tpu-topology") or ""])


def kubectl(cloud, words, line):
    if " get jobset " in f" {line} ":
        if cloud["jobset"]:
            looks = cloud["jobset"]
            run_id = re.search('desta-jax-run-id: "(.+)"', cloud["manifest"]).group(1)
            look = looks.pop(0) if len(looks) > 1 else looks[0]
            if look == "deleted":
                cloud["jobset"] = None
            else:
                print(run_id, look)
    elif " apply " in line and line.endswith(".jobset.yaml"):
        with open(words[words.index("-f") + 1]) as manifest:
            cloud["manifest"] = manifest.read()
        cloud["jobset"] = cloud["jobset_attempts"].pop(0)
    elif " delete jobset " in f" {line} ":
        cloud["jobset"] = None
    elif " logs " in f" {line} ":
        print("step 10 loss 3.0")
    return 0


main()
