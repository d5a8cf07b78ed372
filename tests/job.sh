# job.sh -- jobs of several processes in the current folder: who they are, and how far they have come.
# Sourced by the tests that use mpirun.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

losses() { tail -n +2 "$1/log.jsonl" | grep -o '"loss":[^,]*' | cut -d: -f2; }
agree() { # RUN RUN STEPS TOLERANCE: as many losses, the same to so much
    paste <(losses "$1") <(losses "$2") |
        awk -v steps="$3" -v most="$4" '{d=($1-$2)/$1; if (d<0) d=-d; if (!(d <= most)) exit 1; n++} END{exit n != steps}'
}
logged() { # RUN LINES: waits until the log has as many
    for _ in $(seq 1500); do [ "$(cat "$1/log.jsonl" 2>/dev/null | wc -l)" -ge "$2" ] && return; sleep 0.02; done
    return 1
}
saved() { # RUN: waits until it has a checkpoint
    for _ in $(seq 1500); do [ -e "$1/last" ] && return; sleep 0.02; done
    return 1
}
rank_of() { # RANK: its process, among those of moe-train at work in this folder
    for p in /proc/[0-9]*; do
        if [ "$(cat "$p/comm" 2>/dev/null)" = moe-train ] && [ "$(readlink "$p/cwd")" = "$PWD" ] &&
            tr '\0' '\n' <"$p/environ" | grep -x "OMPI_COMM_WORLD_RANK=$1\|PMI_RANK=$1" >/dev/null; then echo "${p#/proc/}"; fi
    done
}
export -f losses agree logged saved rank_of
