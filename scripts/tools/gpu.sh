#!/usr/bin/env bash
# scripts/tools/gpu.sh [--data FILE] [--peer NANOGPT] [--out FOLDER] [STAGE ...]
#
# What only a machine with a CUDA GPU can show, stage by stage. Each stage has its own time limit and leaves
# FOLDER/STAGE.json (its status, seconds and result) and FOLDER/STAGE.log. A stage that was stopped at its
# limit has the result so far.
#
#   correct   the tests marked gpu, those that compile last: how many passed, which failed, which did not end
#   mfu       bench.py train --only gpu: tokens/s of GPT-2 124M and the share of the card's peak
#   best      ... the lowest loss at nanoGPT's size and its seconds (on tinyshakespeare as --data)
#   rates     scripts/experiments/gpu_rates.py: steps and generated tokens a second
#   peer      ... beside nanoGPT, in turn: --peer is a checkout of it
#
# The default stages, correct mfu best, take at most six minutes. Without --data the text is the standard
# library of the running Python. PYTHON chooses the interpreter (default: .venv's, else python3), LIMIT
# replaces every stage's limit, in seconds. Nothing is installed or fetched; what must be there: torch with
# CUDA and triton, einops, jinja2, numpy, rich, safetensors, tokenizers, tqdm, tyro; for correct,
# pytest and hypothesis; for peer, nanoGPT's own requirements.
#
# Exit status: 0 every stage passed, 1 one failed or came to its limit, 2 bad usage or no GPU.
set -u -o pipefail
started_in=$PWD
cd "$(dirname "$0")/../.."

DEFAULT="correct mfu best"
limit_of() {
    case $1 in
    correct) echo 170 ;;
    mfu) echo 100 ;;
    best) echo 90 ;;
    rates) echo 180 ;;
    peer) echo 240 ;;
    *) return 1 ;;
    esac
}

fail() {
    echo "error: $1" >&2
    exit 2
}

# A path that was given, seen from the folder that this was started in.
path() { case $1 in /*) echo "$1" ;; *) echo "$started_in/$1" ;; esac; }

data="" peer="" out="gpu-results" stages=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit 0 ;;
    --data | --peer | --out)
        [ $# -gt 1 ] || fail "$1: nothing after it, expected a path"
        declare "${1#--}=$(path "$2")"
        shift
        ;;
    *)
        limit_of "$1" >/dev/null || fail "$1: no such stage, expected correct, mfu, best, rates or peer"
        stages+=("$1")
        ;;
    esac
    shift
done
[ ${#stages[@]} -gt 0 ] || read -r -a stages <<<"$DEFAULT"
out=$(path "$out")
[ -z "$data" ] || [ -f "$data" ] || fail "--data: $data: no such file"
[[ " ${stages[*]} " != *" peer "* ]] || [ -f "$peer/train.py" ] || fail "--peer: expected a checkout of nanoGPT"

python=${PYTHON:-}
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python || python=python3; }
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
    fail "$python: torch finds no CUDA GPU, expected one; PYTHON=... chooses another interpreter"

mkdir -p "$out" || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -z "$data" ]; then
    data=$work/text.txt
    "$python" - "$data" <<'END' || fail "no text could be made of the standard library: give --data"
import pathlib, sys, sysconfig
files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
text = "".join(file.read_text(encoding="utf-8") for file in files)
pathlib.Path(sys.argv[1]).write_text(text[:4_000_000], encoding="utf-8")
END
fi

# run STAGE LIMIT: the stage's command, whose result goes to $work/result.json.
run() {
    case $1 in
    correct)
        # In this order the run that test_gpu.py compares with is made once.
        mapfile -t files < <(grep -rlE 'mark\.gpu' --include='test_*.py' tests | LC_ALL=C sort)
        timeout -k 10 "$2" "$python" -m pytest -p no:cacheprovider -p scripts.tools.gpu_tests -W default \
            -m gpu "${files[@]}" --out "$work/result.json"
        ;;
    rates)
        timeout -k 10 "$2" "$python" -W ignore scripts/experiments/gpu_rates.py | tee "$work/lines"
        local status=$? # timeout's, by pipefail
        echo "[$(grep '^{' "$work/lines" | paste -sd, -)]" >"$work/result.json"
        return $status
        ;;
    *)
        timeout -k 10 "$2" "$python" scripts/bench.py train --only gpu --stages "$1" --repeats 1 \
            --data "$data" ${peer:+--peer "$peer"} --out "$work/result.json"
        ;;
    esac
}

failed=0
for stage in "${stages[@]}"; do
    limit=${LIMIT:-$(limit_of "$stage")}
    rm -f "$work/result.json"
    echo "$stage: at most $limit s ..." >&2
    begin=$(date +%s)
    run "$stage" "$limit" >"$out/$stage.log" 2>&1
    status=$?
    seconds=$(($(date +%s) - begin))
    case $status in 0) outcome=passed ;; 124 | 137) outcome="stopped at its limit" ;; *) outcome=failed ;; esac
    [ "$outcome" = passed ] || { failed=1 && tail -n 20 "$out/$stage.log" >&2; }
    {
        printf '{"stage": "%s", "outcome": "%s", "status": %d, ' "$stage" "$outcome" "$status"
        printf '"seconds": %d, "limit": %d, "result": ' "$seconds" "$limit"
        cat "$work/result.json" 2>/dev/null || echo null
        echo "}"
    } >"$out/$stage.json"
    echo "$stage: $outcome after $seconds s: $out/$stage.json" >&2
done
exit $failed
