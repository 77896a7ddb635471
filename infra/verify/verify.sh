#!/bin/sh
# Verifies an export of the audit log with nothing but a shell, coreutils, awk, cmp, find and openssl:
#
#   sh verify.sh DIR [--key VKEYS] [--since OLD_CHECKPOINT] [--text SIZE]
#
# every entry is hashed (RFC 6962), the hashes are compared with the tiles (C2SP tlog-tiles), and the root over them with
# the signed checkpoint (C2SP tlog-checkpoint). --key: the log's verifier keys, one on each line, which you were given by
# somebody you believe; without it those in DIR are used, which proves that DIR is of one piece, not who made it. Behind a
# key may stand the first and the last size that it signs (`-`: it still does), as /audit/log/vkeys writes them.
# --since: a checkpoint that you saved before; the log has to continue it.
# --text: print, and nothing else, the text of the checkpoint of the first SIZE entries, which a timestamp is of.
#
# exit 0: whole   1: tampered with   2: could not be checked
# Some 10,000 entries take a few seconds; for a million take `sophon audit verify --export` or Go's sumdb packages.
set -u
LC_ALL=C
export LC_ALL
umask 077

tampered() { echo "TAMPERED: $*" >&2; exit 1; }
cannot() { echo "cannot check: $*" >&2; exit 2; }

dir='' keys='' since='' text=''
while [ $# -gt 0 ]; do
    case $1 in
    --key) [ $# -ge 2 ] || cannot "--key needs a file"; keys=$2; shift 2 ;;
    --since) [ $# -ge 2 ] || cannot "--since needs a file"; since=$2; shift 2 ;;
    --text) [ $# -ge 2 ] || cannot "--text needs a size"; text=$2; shift 2 ;;
    -*) cannot "there is no option $1" ;;
    *) [ -z "$dir" ] || cannot "one directory, please"; dir=$1; shift ;;
    esac
done
[ -n "$dir" ] || cannot "usage: verify.sh DIR [--key VKEYS] [--since OLD_CHECKPOINT] [--text SIZE]"
case $text in *[!0-9]* | 0* | ????????????????*) cannot "--text needs a size" ;; esac
exec 3>&1
[ -z "$text" ] || exec >&2
for tool in openssl sha256sum base64 od awk find cmp; do
    command -v "$tool" >/dev/null 2>&1 || cannot "$tool is not installed"
done
[ ! -e "$dir/INCOMPLETE" ] || cannot "the export in $dir has not ended"
for name in checkpoint vkeys manifest.json README verify.sh SHA256SUMS; do
    [ -f "$dir/$name" ] && [ ! -h "$dir/$name" ] && [ -r "$dir/$name" ] || cannot "$dir/$name cannot be read as a file"
done
long=$(cd "$dir" && find checkpoint vkeys manifest.json README verify.sh SHA256SUMS -size +1048576c) &&
    [ -z "$long" ] || cannot "$dir has files that are too long to be what they should be: $long"
# Before any of it is read: a link leads elsewhere, a pipe keeps waiting, and a file may be longer than any memory.
if [ -d "$dir/tile" ] && [ -n "$(find "$dir/tile" ! -type d \( ! -type f -o -size +16777472c \) | head -n 1)" ]; then
    [ -z "$(find "$dir/tile" ! -type d ! -type f | head -n 1)" ] ||
        cannot "below $dir/tile is a link, a pipe or a device; an export has files, and nothing else"
    tampered "a file below tile is too long for a tile"
fi
manifest=$(tr -d ' \t\r\n\000' <"$dir/manifest.json")
case $manifest in
*'"format":'*'"format":'*) cannot "$dir/manifest.json names several formats" ;;
*'"format":"tiles"'*) ;;
*) cannot "$dir is no export as tiles: sophon audit export DIR --format tiles" ;;
esac
work=$(mktemp -d) || cannot "no temporary directory"
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

# --- Files that lie around the log: a checksum says that they came over whole, and not who wrote them.
(cd "$dir" && sha256sum checkpoint vkeys manifest.json README verify.sh) >"$work/sums" || cannot "sha256sum failed"
cmp -s "$work/sums" "$dir/SHA256SUMS" || tampered "a file beside the tiles is not the one that was exported (SHA256SUMS)"

# The shell does what it can by itself: of the time that a small export takes, the start of programs is nearly all.

# Decodes base64 in its only spelling: $1 -> file $2. The bits of its last letter that are of no byte have to be zero.
decode() {
    case $1 in
    *[AQgw]==) letters=${1%==} ;;
    *[AEIMQUYcgkosw048]=) letters=${1%=} ;;
    *) letters=$1 ;;
    esac
    case $letters in *[!ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/]*) return 1 ;; esac
    [ $((${#1} % 4)) -eq 0 ] && base64 -d >"$2" 2>/dev/null <<END
$1
END
}

# Whether $1 is a size in its only spelling.
is_size() { case $1 in '' | *[!0-9]* | 0?* | ????????????????*) return 1 ;; esac }

# --- Keys: <name>+<id>+<base64 of type and key>; the id is the beginning of SHA-256(name, line end, type and key).
[ -n "$keys" ] || { keys=$dir/vkeys; echo "keys: those of the export itself; compare them with what you were given:"; }
[ -r "$keys" ] || cannot "$keys cannot be read"
: >"$work/copy"
log=''
while IFS= read -r line; do
    printf '%s\n' "$line" >>"$work/copy"
    first=0 last=-
    case $line in
    *' '*' '*) rest=${line#* } line=${line%% *} first=${rest%% *} last=${rest#* } ;;
    *' '*) cannot "$keys has a line that is no key" ;;
    esac
    is_size "$first" && { [ "$last" = - ] || is_size "$last"; } || cannot "$keys has a key with sizes that are none"
    name=${line%%+*} rest=${line#*+}
    id=${rest%%+*} key=${rest#*+}
    [ -n "$name" ] || cannot "$keys has a line that is no key"
    [ -z "$log" ] || [ "$log" = "$name" ] || cannot "$keys has keys of several logs"
    log=$name
    decode "$key" "$work/key" || cannot "$keys has a key that is no base64"
    { printf '%s\n' "$name" && cat "$work/key"; } >"$work/named"
    sum=$(sha256sum <"$work/named")
    [ ${#id} -eq 8 ] && [ "${sum#"$id"}" != "$sum" ] || cannot "a key in $keys does not have the id that it should have"
    set -- $(od -An -v -tx1 -N40 "$work/key")
    case ${1-} in
    01)
        [ $# -eq 33 ] || cannot "an Ed25519 key in $keys does not have 32 bytes"
        { printf '\060\052\060\005\006\003\053\145\160\003\041\000' && tail -c 32 "$work/key"; } >"$work/$id.der"
        ;;
    04 | 06) ;; # other kinds of signatures, which are for other tools
    *) cannot "$keys has a key of a kind that is not known" ;;
    esac
    printf '%s %s\n' "$first" "$last" >>"$work/$id.terms"
    printf '  %.100s\n' "$line"
done <"$keys"
cmp -s "$work/copy" "$keys" || cannot "$keys is not lines of text"
[ -n "$log" ] || cannot "$keys is empty"

# Whether a key with the terms in file $1 signs checkpoints of $size entries.
is_in_force() {
    while read -r first last; do
        [ "$first" -le "$size" ] || continue
        [ "$last" != - ] || return 0
        [ "$size" -gt "$last" ] || return 0
    done <"$1"
    return 1
}

# --- A checkpoint: origin, size, root, an empty line, signatures. Sets size and root (in hexadecimal); $1 is the file.
open_checkpoint() {
    dash=$(printf '\342\200\224')
    what=$2
    [ -r "$1" ] || cannot "$1 cannot be read"
    [ "$(wc -c <"$1")" -le 262144 ] || tampered "$what is too long"
    tr -d '\012\040-\377' <"$1" >"$work/control" && [ ! -s "$work/control" ] || tampered "$what has control characters"
    : >"$work/text"
    : >"$work/copy"
    : >"$work/signatures"
    number=0 part=text
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$work/copy"
        number=$((number + 1))
        if [ $part = signatures ]; then
            printf '%s\n' "$line" >>"$work/signatures"
        elif [ -z "$line" ]; then
            [ $number -ge 4 ] || tampered "$what is too short"
            part=signatures
        else
            printf '%s\n' "$line" >>"$work/text"
            case $number in 1) origin=$line ;; 2) size=$line ;; 3) root64=$line ;; esac
        fi
    done <"$1"
    cmp -s "$work/copy" "$1" || tampered "$what does not consist of lines"
    [ $part = signatures ] || tampered "$what is not signed"
    [ "$origin" = "$log" ] || cannot "$what is of the log $origin, and the keys are of $log"
    is_size "$size" || tampered "$what has no size"
    decode "$root64" "$work/root" && set -- $(od -An -v -tx1 -N40 "$work/root") && [ $# -eq 32 ] ||
        tampered "$what has no root"
    root=''
    for byte in "$@"; do root=$root$byte; done
    signed=0 retired=0
    while IFS= read -r line; do
        case $line in "$dash "*' '*) ;; *) tampered "$what has a line that is no signature" ;; esac
        rest=${line#"$dash "}
        name=${rest%% *} signature=${rest#* }
        case $name in '' | *+*) tampered "$what has a signature without a name" ;; esac
        decode "$signature" "$work/signature" || tampered "$what has a signature that is no base64"
        set -- $(od -An -v -tx1 -N5 "$work/signature")
        [ $# -ge 5 ] || tampered "$what has a signature that is too short"
        id=$1$2$3$4
        [ "$name" = "$log" ] && [ -e "$work/$id.der" ] || continue
        tail -c +5 "$work/signature" >"$work/raw"
        openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/$id.der" -rawin -in "$work/text" \
            -sigfile "$work/raw" >/dev/null 2>&1 || tampered "$what: the signature of $name is wrong"
        if is_in_force "$work/$id.terms"; then signed=$((signed + 1)); else retired=$((retired + 1)); fi
    done <"$work/signatures"
    [ $signed -gt 0 ] || [ $retired -eq 0 ] || tampered "$what: the key that signed $size entries does not sign so many"
    [ $signed -gt 0 ] || cannot "$what is not signed with an Ed25519 key that we were given: a wrong key, or forged"
}

if [ -n "$since" ]; then
    open_checkpoint "$since" "the saved checkpoint"
    old_size=$size old_root=$root
fi
open_checkpoint "$dir/checkpoint" "the checkpoint"
[ -d "$dir/tile" ] || [ "$size" -eq 0 ] || cannot "$dir has no tiles: export the log with --format tiles"
[ -z "$since" ] || [ "$old_size" -le "$size" ] ||
    tampered "entries $((size + 1)) to $old_size are gone: the saved checkpoint is of more entries than the export has"

# Sets path to that of tile $2 of level $1 with $3 hashes.
path() {
    n=$2 digits=$((1000 + $2 % 1000))
    path=${digits#1}
    while [ "$n" -ge 1000 ]; do
        n=$((n / 1000)) digits=$((1000 + n % 1000))
        path=x${digits#1}/$path
    done
    [ "$3" -eq 256 ] || path=$path.p/$3
    path=tile/$1/$path
}

# Reads a bundle of $1 entries as octal bytes, and writes a script that puts each, behind a zero byte, into a file.
split_entries='
BEGIN { state = 0; entry = 0 }
{
    for (i = 1; i <= NF; i++) {
        if (state == 0) { high = $i; state = 1; continue }
        if (state == 1) {
            left = 256 * value(high) + value($i)
            printf "printf '\''\\000"
            state = 2
        } else { printf "\\%s", $i; left-- }
        if (left == 0) { printf "'\'' >%05d\n", ++entry; state = 0 }
    }
}
END {
    if (state != 0) print "'\'' >/dev/null; exit 9"
    print (entry == width) ? "sha256sum ./*" : "exit 9"
}
function value(octal) { return 64 * substr(octal, 1, 1) + 8 * substr(octal, 2, 1) + substr(octal, 3, 1) }'

# Reads hashes in hexadecimal, one on each line, and writes a script that hashes each pair of them as a node.
pair_up='
BEGIN {
    for (i = 0; i < 256; i++) octal[sprintf("%02x", i)] = sprintf("\\%03o", i)
}
{
    line = ""
    for (i = 1; i <= 64; i += 2) line = line octal[substr($1, i, 2)]
    if (NR % 2) { left = line; next }
    printf "printf '\''\\001%s%s'\'' >%05d\n", left, line, ++node
    if (node == 4096) { print "sha256sum ./* && rm -f ./*"; node = 0 }
}
END { if (node) print "sha256sum ./*" }'

# Runs a script in an empty directory; gives the hashes that it prints, one on each line.
hashed() {
    [ ! -d "$work/files" ] || rm -rf "$work/files"
    mkdir "$work/files" && (cd "$work/files" && . "$1" >"$work/hashed") || return 1
    awk '{ print substr($1, 1, 64) }' "$work/hashed"
}

# Compares file $1, hashes in hexadecimal, with the tile at path $2, which is of $3 hashes; $4 * n + $5 is entry n.
compare() {
    [ -f "$dir/$2" ] || tampered "$2 is missing"
    files=$((files + 1))
    od -An -v -tx1 -w32 "$dir/$2" | tr -d ' ' >"$work/tile"
    cmp -s "$1" "$work/tile" && return
    [ "$(wc -c <"$dir/$2")" -eq $((32 * $3)) ] || tampered "$2 does not have $3 hashes"
    at=$(paste "$1" "$work/tile" | awk '$1 != $2 { print NR - 1; exit }')
    tampered "entry $(($4 * at + $5)): it hashes to something else than $2 says"
}

# --- Each bundle: hash its entries, compare with the tile of their hashes.
files=0 index=0
: >"$work/level"
while [ $((index * 256)) -lt "$size" ]; do
    width=$((size - index * 256))
    [ $width -le 256 ] || width=256
    path entries $index $width
    bundle=$path
    [ -f "$dir/$bundle" ] || tampered "$bundle is missing: entries $((index * 256 + 1)) to $((index * 256 + width))"
    files=$((files + 1))
    od -An -v -to1 -w16 "$dir/$bundle" | awk -v width=$width "$split_entries" >"$work/script"
    hashed "$work/script" >"$work/leaves" 2>/dev/null || tampered "$bundle does not hold $width entries"
    path 0 $index $width
    compare "$work/leaves" "$path" $width 1 $((index * 256 + 1))
    cat "$work/leaves" >>"$work/level"
    index=$((index + 1))
done
[ -z "$since$text" ] || cp "$work/level" "$work/all"

# --- Level by level up to the root of the $1 hashes in $work/level; an odd one goes up as it is. With $2, compare tiles.
climb() {
    height=0 count=$1 span=1
    while [ "$count" -gt 1 ]; do
        awk "$pair_up" "$work/level" >"$work/script"
        hashed "$work/script" >"$work/above" || cannot "hashing failed"
        [ $((count % 2)) -eq 0 ] || tail -n 1 "$work/level" >>"$work/above"
        mv "$work/above" "$work/level"
        count=$(wc -l <"$work/level") height=$((height + 1)) span=$((span * 2))
        [ -n "$2" ] && [ $((height % 8)) -eq 0 ] || continue
        nodes=$((size / span)) index=0
        while [ $((index * 256)) -lt $nodes ]; do
            width=$((nodes - index * 256))
            [ $width -le 256 ] || width=256
            head -n $((index * 256 + width)) "$work/level" | tail -n $width >"$work/nodes"
            path $((height / 8)) $index $width
            compare "$work/nodes" "$path" $width $span $((index * 256 * span + 1))
            index=$((index + 1))
        done
    done
    read -r found <"$work/level" || found=$(sha256sum </dev/null | awk '{ print $1 }')
}
climb "$size" tiles
[ "$found" = "$root" ] || tampered "the root of the entries is $found, and $root was signed"
if [ "$size" -gt 0 ]; then
    [ "$(find "$dir/tile" ! -type d | wc -l)" -eq $files ] || tampered "there are files that do not belong to $size entries"
fi
if [ -n "$since" ]; then
    head -n "$old_size" "$work/all" >"$work/level"
    climb "$old_size" ''
    [ "$found" = "$old_root" ] ||
        tampered "the first $old_size entries have the root $found, and $old_root was signed before: another history"
fi
if [ -n "$text" ]; then
    [ "$text" -le "$size" ] || cannot "there are $size entries"
    head -n "$text" "$work/all" >"$work/level"
    climb "$text" ''
    for byte in $(printf %s "$found" | fold -w 2); do printf "\\$(printf %o $((0x$byte)))"; done >"$work/root"
    printf '%s\n%s\n%s\n' "$log" "$text" "$(base64 -w0 <"$work/root")" >&3
fi
echo "whole: $size entries of $log, root $root"
