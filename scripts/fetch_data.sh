#!/bin/sh
# fetch_data.sh: fetches a public set of images, checks it, and says how to train on it.
#
#   scripts/fetch_data.sh cifar10|fashion-mnist [FOLDER]
#
# Files that are there already and right are not fetched again. Nothing that fails its checksum stays
# under its name.
set -u

name=${1:-}
folder=${2:-data/$name}

case $name in
cifar10)
    base=https://www.cs.toronto.edu/~kriz
    files='c32a1d4ab5d03f1284b67883e8d87530 cifar-10-binary.tar.gz'
    ;;
fashion-mnist)
    base=http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
    files='8d4fb7e6c68d591d4c3dfef9ec88bf0d train-images-idx3-ubyte.gz
25c81989df183df01b3e8a0aad5dffbe train-labels-idx1-ubyte.gz
bef4ecab320f06d8554ea6380940ec79 t10k-images-idx3-ubyte.gz
bb300cfdad3c16e7a12a480ee83cd310 t10k-labels-idx1-ubyte.gz'
    ;;
*)
    echo "usage: scripts/fetch_data.sh cifar10|fashion-mnist [FOLDER]" >&2
    exit 2
    ;;
esac

# The MD5 sum of a file, with what the system has.
md5_of() {
    if command -v md5sum > /dev/null; then
        md5sum < "$1" | cut -c 1-32
    elif command -v md5 > /dev/null; then
        md5 -q "$1"
    else
        openssl md5 -r < "$1" | cut -c 1-32
    fi
}

# fetch URL FILE
fetch() {
    if command -v curl > /dev/null; then
        curl --fail --location --connect-timeout 20 --retry 2 --progress-bar -o "$2" "$1"
    elif command -v wget > /dev/null; then
        wget --timeout=20 --tries=3 -q --show-progress -O "$2" "$1"
    else
        echo "neither curl nor wget is installed"
        return 1
    fi
}

# What is left to the user where there is no way out to the internet.
by_hand() {
    echo
    echo "$1. By hand: fetch elsewhere"
    echo "$files" | while read -r sum file; do
        echo "    $base/$file    (MD5 $sum)"
    done
    echo "into the folder $folder and run 'make $name' again."
    exit 1
}

mkdir -p "$folder" || exit 1
echo "$files" | {
    while read -r sum file; do
        path=$folder/$file
        if [ -f "$path" ]; then
            [ "$(md5_of "$path")" = "$sum" ] && echo "$path is there" && continue
            by_hand "$path is damaged: its MD5 sum is not $sum; remove it"
        fi
        echo "fetching $base/$file"
        if ! fetch "$base/$file" "$path.part"; then
            rm -f "$path.part"
            by_hand "$file could not be fetched"
        fi
        if [ "$(md5_of "$path.part")" != "$sum" ]; then
            rm -f "$path.part"
            by_hand "what came from $base/$file is not the file (its MD5 sum is not $sum)"
        fi
        mv "$path.part" "$path" || exit 1
    done
} || exit 1

if [ "$name" = cifar10 ]; then
    tar -xzf "$folder/cifar-10-binary.tar.gz" -C "$folder" || exit 1
fi
echo "ready: lua5.4 scripts/train_resnet.lua --data $name --data-dir $folder"
