# shellcheck shell=bash
# Sourced by the batch scripts of this folder.
#
# run_or_requeue COMMAND... runs a job step. SIGUSR1, which SLURM sends before the time limit, is passed on to
# it. If the step ends with biloom's exit code 75 (stopped and saved), the job is requeued, at most
# BILOOM_MAX_REQUEUES times (100). With any other code but 0, the job ends with that code.

STOPPED=75
# Since SLURM 22.05, srun does not take over the --cpus-per-task of the job.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

run_or_requeue() {
    local step code interrupted forwarded=
    "$@" &
    step=$!
    # A second signal would end biloom before it has saved.
    # shellcheck disable=SC2064 # the number of the process is known now
    trap "interrupted=1; [ -n \"\$forwarded\" ] || kill -USR1 $step 2>/dev/null || true; forwarded=1" USR1
    while true; do
        interrupted=
        code=0
        wait "$step" || code=$?
        # A signal ends `wait` before the step has ended.
        [ -n "$interrupted" ] || break
    done
    trap - USR1
    if [ "$code" -eq 0 ]; then
        return
    fi
    if [ "$code" -ne "$STOPPED" ]; then
        echo "$0: the step ended with exit code $code; the job is not requeued" >&2
        exit "$code"
    fi
    local most=${BILOOM_MAX_REQUEUES:-100} restarts=${SLURM_RESTART_COUNT:-0}
    if [ "$restarts" -ge "$most" ]; then
        echo "$0: the step was stopped and has saved, but the job was requeued $restarts times already" \
            "(BILOOM_MAX_REQUEUES); sbatch continues it" >&2
        exit "$code"
    fi
    echo "$0: the step was stopped and has saved; requeueing job $SLURM_JOB_ID" >&2
    scontrol requeue "$SLURM_JOB_ID"
    # SLURM ends this script, and starts it again when the job is scheduled.
    exit "$code"
}
