#!/bin/sh
# A Slurm cluster of one node on this machine, from Debian's packages, for as long as a command runs.
#
# usage, as root after apt-get install slurm-wlm munge: scripts/slurm_trial.sh PYTHON [COMMAND ...]
#
# Without a command: six small runs through examples/compare.py with a time limit of one minute, which some reach. Exit
# code 0 if all are done and a time limit was reached.
set -eu
cd "$(dirname "$0")/.."
python=$1
shift
work=$(mktemp -d /tmp/slurm-trial.XXXXXX)
host=$(hostname -s)
mkdir -p "$work/state" "$work/spool" /run/munge
chown munge: /run/munge
cat >"$work/slurm.conf" <<CONF
ClusterName=trial
SlurmctldHost=$host
NodeName=$host CPUs=2 RealMemory=8000
PartitionName=trial Nodes=$host Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=1000
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=30
MaxArraySize=2001
CONF
export SLURM_CONF="$work/slurm.conf"
daemons=
trap 'kill $daemons 2>/dev/null; wait 2>/dev/null; echo "logs: $work"' EXIT
trap 'exit 143' INT TERM
pgrep -x munged >/dev/null || {
    setpriv --reuid=munge --regid=munge --clear-groups munged --foreground 2>"$work/munged.log" &
    daemons="$daemons $!"
}
slurmctld -D &
daemons="$daemons $!"
slurmd -D &
daemons="$daemons $!"
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
    sleep 1
done
sinfo

if [ $# -gt 0 ]; then
    "$@"
    exit
fi
out=$work/out
"$python" examples/compare.py --methods sac difftori --tasks dm_control/cartpole-swingup --seeds 0 1 2 --frames 4000 \
    --eval-freq 500 --eval-episodes 1 --no-video --engine slurm --slurm partition=trial time=1 mem=1GB --out "$out"
requeued=$(grep -l "Caught signal SIGUSR2" "$out"/slurm/*/*.err | wc -l)
echo "$requeued of 6 jobs reached their time limit and went on"
[ "$requeued" -ge 1 ]
