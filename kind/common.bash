# Sourced by `up` and `down`: how they speak, and where a cluster's files are.
# shellcheck shell=bash disable=SC2034 # What is set here is used there.

# All that belongs to clusters is below this directory, one directory each.
CLUSTERS=${SIGNPOST_KIND_DIR:-$HERE/clusters}
SIGNPOST=${SIGNPOST:-signpost}
# As kind itself chooses: docker, podman or nerdctl.
ENGINE=${KIND_EXPERIMENTAL_PROVIDER:-docker}

say() {
  printf '%s\n' "$*" >&2
}

# fail WHAT [HINT]: says what is wrong and what to do, and ends with 2, "could not".
fail() {
  say "error: $1"
  if [[ -n ${2-} ]]; then say "  hint: $2"; fi
  exit 2
}

# usage FILE: the comment at the top of a script.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$1"
}

# locate NAME: checks the name of a cluster and sets where its files are.
locate() {
  case $1 in
    '' | [!a-z0-9]* | *[!a-z0-9.-]*)
      fail "\`$1\` is no name of a cluster, expected lower-case letters, digits, dots and hyphens" \
        "leave \`--name\` out for \`signpost\`"
      ;;
  esac
  NAME=$1
  STATE=$CLUSTERS/$NAME
  KEYS=$STATE/keys
  CONFIGURATION=$STATE/cluster.yaml
  # A copy of the configuration that the cluster was created with, there as long as the cluster is.
  CREATED=$STATE/cluster.created.yaml
}

# need TOOL WHERE: notes what is missing; `check_needs` names all of it at once.
MISSING=()
need() {
  if ! command -v "$1" >/dev/null 2>&1; then MISSING+=("$1 ($2)"); fi
}

check_needs() {
  if ((${#MISSING[@]} == 0)); then return; fi
  say "error: ${#MISSING[@]} of the programs that this needs are not there"
  printf '  %s\n' "${MISSING[@]}" >&2
  exit 2
}

need_kind() {
  need kind 'https://kind.sigs.k8s.io'
  need "$ENGINE" 'what kind runs nodes in; KIND_EXPERIMENTAL_PROVIDER chooses another'
}

check_engine() {
  "$ENGINE" info >/dev/null 2>&1 ||
    fail "\`$ENGINE\` is there, and no engine answers it" "start it, until \`$ENGINE info\` shows a server"
}

cluster_exists() {
  local clusters
  clusters=$(kind get clusters 2>/dev/null) || fail "\`kind get clusters\` failed" "run it by hand"
  [[ $'\n'$clusters$'\n' == *$'\n'$NAME$'\n'* ]]
}
