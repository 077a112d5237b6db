#!/usr/bin/env bash
# A cluster on one machine: every rank a host of its own (a network namespace), hosts of a node on a
# switch of their own, nodes on a common switch, all links of limited bandwidth. It shows what a network
# does to a program; it is no model of any particular one. Needs root, iproute2 and Open MPI.
#
#   tools/cluster.sh up NODESxRANKS --link MBIT --node MBIT [--seconds S]
#   tools/cluster.sh limit --link MBIT --node MBIT
#   tools/cluster.sh run COMMAND...
#   tools/cluster.sh down
#
# up:   --link is what a rank can send, and at the same time receive, in Mbit/s; --node is what all ranks
#       of a node together can exchange with other nodes. After S seconds (default 3600) the cluster and
#       whatever runs in it are removed.
# limit: gives the links of a cluster that is up other speeds, also while something runs in it.
# run:  starts COMMAND under mpirun, one process a host, ranks numbered node by node, over TCP only.
# down: removes the cluster and whatever runs in it; also when there is none.
# C2R_CLUSTER names the cluster (default c2r), should there be several.
set -euo pipefail
name=${C2R_CLUSTER:-c2r}
self=$(realpath "$0")

die() { echo "cluster: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$self" >&2; exit 2; }
namespaces() { ip netns list 2>/dev/null | awk -v n="$name-" 'index($1, n) == 1 {print $1}'; }
hosts() { namespaces | sed -n "s/^$name-\([0-9]*\)\$/\1/p" | sort -n; }
address() { echo "10.77.$(($1 / 250)).$(($1 % 250 + 1))"; }

down() {
  local space
  for space in $(namespaces); do
    ip netns pids "$space" | xargs -r kill -KILL 2>/dev/null || true
    ip netns del "$space" 2>/dev/null || true
  done
}

# Limits what leaves through a device of a namespace. The bucket holds 4 ms, since timers come late.
shape() {  # NAMESPACE DEVICE MBIT
  local bucket=$(($3 * 1000000 / 8 / 250))
  ip netns exec "$1" tc qdisc replace dev "$2" root tbf rate "$3mbit" latency 50ms \
    burst $((bucket > 65536 ? bucket : 65536))
}

# A cable within the switches' namespace between two bridges, or from a bridge to a host.
plug() {  # DEVICE BRIDGE PEER PEER_NAMESPACE
  ip -n "$name-switch" link add "$1" type veth peer name "$3" netns "$4"
  ip -n "$name-switch" link set "$1" master "$2" up
}

add_host() {  # NAMESPACE BRIDGE ADDRESS
  local device=to-${1##*-}
  ip netns add "$1"
  ip -n "$1" link set lo up
  plug "$device" "$2" eth0 "$1"
  ip -n "$1" addr add "$3/16" dev eth0
  ip -n "$1" link set eth0 up
}

build() {  # NODES RANKS_PER_NODE LINK_MBIT NODE_MBIT
  local node rank switch=$name-switch
  ip netns add "$switch"
  ip -n "$switch" link add core type bridge
  ip -n "$switch" link set core up
  for ((node = 0; node < $1; ++node)); do
    ip -n "$switch" link add "node$node" type bridge
    ip -n "$switch" link set "node$node" up
    plug "up$node" "node$node" "down$node" "$switch"
    ip -n "$switch" link set "down$node" master core up
    shape "$switch" "up$node" "$4"
    shape "$switch" "down$node" "$4"
    for ((rank = node * $2; rank < (node + 1) * $2; ++rank)); do
      add_host "$name-$rank" "node$node" "$(address $rank)"
      shape "$name-$rank" eth0 "$3"
      shape "$switch" "to-$rank" "$3"
    done
  done
  add_host "$name-head" core 10.77.255.254  # where mpirun is; no limit
}

# Sets link, node and seconds.
options() {
  link='' node='' seconds=3600
  while [ $# -gt 0 ]; do
    [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || usage
    case $1 in
      --link) link=$2 ;;
      --node) node=$2 ;;
      --seconds) seconds=$2 ;;
      *) usage ;;
    esac
    shift 2
  done
  [ -n "$link" ] && [ -n "$node" ] || usage
}

up() {
  local nodes ranks link node seconds
  [[ ${1:-} =~ ^([1-9][0-9]{0,2})x([1-9][0-9]{0,2})$ ]] || usage
  nodes=${BASH_REMATCH[1]} ranks=${BASH_REMATCH[2]}
  shift
  options "$@"
  [ $((nodes * ranks)) -le 1000 ] || die "$((nodes * ranks)) ranks are more than the 1000 it can hold"
  [ -z "$(namespaces)" ] || die "the cluster $name is up already; tools/cluster.sh down removes it"
  # The watchdog is a process of its own: it ends the cluster even if this script is killed.
  setsid "$self" watch $$ "$seconds" >/dev/null 2>&1 </dev/null &
  build "$nodes" "$ranks" "$link" "$node"
  echo "$((nodes * ranks)) hosts in $nodes nodes, $link Mbit/s a host, $node Mbit/s a node; for $seconds s"
  echo "use it: tools/cluster.sh run COMMAND...; remove it: tools/cluster.sh down"
}

limit() {
  local link node seconds rank switch=$name-switch device
  options "$@"
  [ -n "$(namespaces)" ] || die "the cluster $name is not up; tools/cluster.sh up makes one"
  for device in $(ip -n "$switch" -br link show | sed -n 's/^\(up\|down\)\([0-9]*\)@.*/\1\2/p'); do
    shape "$switch" "$device" "$node"
  done
  for rank in $(hosts); do
    shape "$name-$rank" eth0 "$link"
    shape "$switch" "to-$rank" "$link"
  done
}

# Removes the cluster after some seconds, or at once if `up` ended without building all of it.
watch() {  # PID_OF_UP SECONDS
  local end=$((SECONDS + $2)) built
  while kill -0 "$1" 2>/dev/null; do sleep 0.2; done
  built=$(which_cluster)
  while [ -n "$built" ] && [ $SECONDS -lt $end ]; do
    sleep 1
    [ "$(which_cluster)" = "$built" ] || return 0  # somebody else removed it
  done
  down
}
which_cluster() { stat -c %i "/run/netns/$name-head" 2>/dev/null || true; }

run() {
  [ $# -gt 0 ] || usage
  local rank list=''
  for rank in $(hosts); do list+=,$(address "$rank"):1; done
  [ -n "$list" ] || die "the cluster $name is not up; tools/cluster.sh up makes one"
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  exec ip netns exec "$name-head" "$(command -v mpirun.openmpi || echo mpirun)" \
    --host "${list#,}" --bind-to none --mca plm_rsh_agent "$self agent" --mca plm_rsh_no_tree_spawn 1 \
    --mca btl self,tcp --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 "$@"
}

# What mpirun calls in place of ssh. Hosts have names of their own, by which Open MPI tells them apart.
agent() {  # ADDRESS COMMAND...
  local rank
  IFS=. read -r _ _ high low <<<"$1"
  rank=$((high * 250 + low - 1))
  shift
  exec ip netns exec "$name-$rank" unshare --uts sh -c "hostname $name-$rank; $*"
}

verb=${1:-}
[ $# -gt 0 ] && shift
case $verb in
  up | limit | run | down | watch | agent) ;;
  *) usage ;;
esac
[ "$(id -u)" -eq 0 ] || die "needs root, for network namespaces"
"$verb" "$@"
