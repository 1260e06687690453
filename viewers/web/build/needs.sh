#!/bin/sh
# Says in one line what is missing here to build the player (`needs.sh node`) or to test it
# (`needs.sh node chromium`), and how to get it; says nothing and succeeds when all is there.
node_is_new_enough() {
  # Vite's and Vitest's own limits.
  node -e 'const [a, b] = process.versions.node.split(".").map(Number);
    process.exit(a > 22 || (a === 22 && b >= 13) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null &&
    npm --version >/dev/null 2>&1
}

case $0 in */*) here=${0%/*} ;; *) here=. ;; esac

# Ubuntu's chromium-browser may be a note to use snap.
starts() {
  [ -x "$1" ] && "$1" --version >/dev/null 2>&1 </dev/null
}

chromium_is_there() {
  starts "$SCENE4D_CHROMIUM" && return 0
  while read -r path; do
    starts "$path" && return 0
  done <"$here/chromium-paths.txt"
  return 1
}

missing=
for need in "$@"; do
  case $need in
    node)
      node_is_new_enough && continue
      found=$(node --version 2>/dev/null) || found="no Node.js"
      part="Node.js 20.19 or newer with npm ($found here; \`make node\` installs it into .venv)" ;;
    chromium)
      chromium_is_there && continue
      part="Chromium (apt-get install chromium, or SCENE4D_CHROMIUM=/path/to/chrome)" ;;
    *) echo "needs.sh: $need?" >&2; exit 2 ;;
  esac
  missing="${missing:+$missing, and }$part"
done
[ -z "$missing" ] || { echo "missing: $missing"; exit 1; }
