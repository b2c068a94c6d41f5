#!/bin/sh
# setup.sh: finds what resin is built from, and on Debian and Ubuntu installs what is missing.
#
#   scripts/setup.sh configure FILE [engine]
#       writes what it finds as make variables, or says in plain words what is missing and the line
#       that installs it; engine: without Lua's headers and OpenBLAS, for another processor
#   scripts/setup.sh install build|test|ci|compare|arm
#       installs what is missing to build, test, compare with PyTorch or test for Arm; where it may
#       not, it prints the one line to run and stops
#   scripts/setup.sh cmocka ARCHITECTURE FOLDER
#       unpacks Debian's cmocka for another processor into a folder; the system stays as it is
#
# It reads CC, CFLAGS, CPPFLAGS, LDFLAGS, LUA, LUA_INCDIR, OPENBLAS_LIBDIR, BUSTED and PYTHON from
# the environment.
set -u

CC=${CC:-cc}
CFLAGS=${CFLAGS:-}
CPPFLAGS=${CPPFLAGS:-}
LDFLAGS=${LDFLAGS:-}
LUA_INCDIR=${LUA_INCDIR:-}
OPENBLAS_LIBDIR=${OPENBLAS_LIBDIR:-}

scratch=$(mktemp -d "${TMPDIR:-/tmp}/resin-setup.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

# ---- Looking ------------------------------------------------------------------------------------

# Compiles and links the program on standard input with the given extra arguments. Tests do not run
# what they build, so that cross-compiling works.
links() {
    cat > "$scratch/try.c"
    # The variables hold lists of flags: they are meant to be split.
    # shellcheck disable=SC2086
    $CC $CPPFLAGS $CFLAGS "$scratch/try.c" -o "$scratch/try" $LDFLAGS "$@" > "$scratch/log" 2>&1
}

has_compiler() {
    links << 'END'
#include <stdio.h>
int main(void) { return puts("") < 0; }
END
}

# LUA: an interpreter that is Lua 5.4.
find_lua() {
    prefix=$(brew --prefix lua@5.4 2> /dev/null) || prefix=/usr/local
    for candidate in ${LUA:-} lua5.4 lua-5.4 lua54 lua "$prefix/bin/lua"; do
        version=$($candidate -e 'io.write(_VERSION)' 2> /dev/null) || continue
        if [ "$version" = "Lua 5.4" ]; then
            LUA=$candidate
            return 0
        fi
    done
    return 1
}

lua_headers_at() {
    links "$@" << 'END'
#include <lua.h>
#include <lauxlib.h>
#if LUA_VERSION_NUM != 504
#error "not Lua 5.4"
#endif
int main(void) { return 0; }
END
}

# LUA_FLAGS: where the headers of Lua 5.4 are; LUA_LIBS: its library, which only a host needs (the
# embedding test).
find_lua_headers() {
    LUA_FLAGS='' LUA_LIBS=''
    for name in lua5.4 lua-5.4 lua54 lua; do
        LUA_LIBS=$(pkg-config --libs "$name" 2> /dev/null) || continue
        LUA_FLAGS=$(pkg-config --cflags "$name")
        # shellcheck disable=SC2086
        [ -z "$LUA_INCDIR" ] && lua_headers_at $LUA_FLAGS && return 0
        [ -n "$LUA_INCDIR" ] && break
    done
    [ -n "$LUA_LIBS" ] || LUA_LIBS=-llua5.4
    prefix=$(brew --prefix lua@5.4 2> /dev/null || brew --prefix lua 2> /dev/null) || prefix=/usr
    for folder in "$LUA_INCDIR" /usr/include/lua5.4 /usr/local/include/lua5.4 \
        "$prefix/include/lua5.4" "$prefix/include/lua" /usr/local/include; do
        LUA_FLAGS=-I$folder
        [ -n "$folder" ] && lua_headers_at "$LUA_FLAGS" && return 0
        [ -n "$LUA_INCDIR" ] && return 1
    done
    LUA_FLAGS=''
    lua_headers_at
}

# OPENBLAS_PATHS: where OpenBLAS may be at run time, best first, separated by ':'. It is loaded when
# first needed and never linked. The OpenMP build can be called from several threads at once, so it
# comes before the others, whichever build the system's own links prefer; bare names are left to the
# loader.
find_openblas() {
    found=''
    triplet=$($CC -print-multiarch 2> /dev/null)
    [ -n "$triplet" ] || triplet=$($CC -dumpmachine 2> /dev/null | sed 's/-[a-z]*-linux/-linux/')
    prefix=$(brew --prefix openblas 2> /dev/null) || prefix=/usr
    for folder in "/usr/lib/$triplet/openblas-openmp" "$OPENBLAS_LIBDIR" /usr/lib64 \
        "/usr/lib/$triplet" "$prefix/lib" /usr/lib /usr/local/lib; do
        [ -n "$folder" ] || continue
        for name in libopenblaso.so.0 libopenblas.so.0 libopenblas.so.3 libopenblas.0.dylib; do
            [ -e "$folder/$name" ] && found="$found$folder/$name:"
        done
    done
    listed=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2> /dev/null |
        sed -n 's/.*=> \(.*libopenblaso\{0,1\}\.so\.[0-9]*\)$/\1/p' | tr '\n' ':')
    found=$found$listed
    OPENBLAS_PATHS=$(printf '%s' "$found" | tr ':' '\n' | awk '!seen[$0]++' | tr '\n' ':')
    OPENBLAS_PATHS=${OPENBLAS_PATHS}libopenblaso.so.0:libopenblas.so.0
    [ -n "$found" ]
}

# What the engine does without: zlib for gzipped data, libpng and libjpeg-turbo for pictures.

# find_library PACKAGE LINK: whether the program on standard input builds with the library; its
# flags in LIBRARY_FLAGS and LIBRARY_LIBS.
find_library() {
    LIBRARY_FLAGS=$(pkg-config --cflags "$1" 2> /dev/null)
    LIBRARY_LIBS=$(pkg-config --libs "$1" 2> /dev/null) || LIBRARY_LIBS=$2
    # shellcheck disable=SC2086
    links $LIBRARY_FLAGS $LIBRARY_LIBS
}

find_zlib() {
    find_library zlib -lz << 'END'
#include <zlib.h>
int main(void) { return zlibVersion() == 0; }
END
}

find_png() {
    find_library libpng -lpng << 'END'
#include <png.h>
int main(void) { return png_access_version_number() == 0; }
END
}

# libjpeg-turbo, or another libjpeg that reads from memory.
find_jpeg() {
    find_library libjpeg -ljpeg << 'END'
#include <stdio.h>
#include <jpeglib.h>
int main(void) {
    struct jpeg_decompress_struct decoder;
    jpeg_create_decompress(&decoder);
    jpeg_mem_src(&decoder, (unsigned char *)"", 0);
    return 0;
}
END
}

# $1 was found: FEATURES, FEATURE_LIBS and FEATURE_REQUIRES (pkg-config's name $2) get it.
add_feature() {
    FEATURES="$FEATURES -DRESIN_HAVE_$1 $LIBRARY_FLAGS"
    FEATURE_LIBS="$FEATURE_LIBS $LIBRARY_LIBS"
    FEATURE_REQUIRES="$FEATURE_REQUIRES $2"
}

# KERNEL_SETS: the instruction sets that the compiler can build kernels for, best first.
find_kernel_sets() {
    KERNEL_SETS=''
    echo 'int main(void) { return 0; }' > "$scratch/sets.c"
    for level in v4 v3 v2; do
        wide=''
        [ $level = v4 ] && wide=-mprefer-vector-width=512
        # shellcheck disable=SC2086
        links -march=x86-64-$level $wide < "$scratch/sets.c" && KERNEL_SETS="$KERNEL_SETS$level "
    done
    KERNEL_SETS="${KERNEL_SETS}generic"
}

has_cmocka() {
    links -lcmocka << 'END'
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
int main(void) { return cmocka_run_group_tests_name("", (struct CMUnitTest *)0, 0, 0); }
END
}

# BUSTED_COMMAND: what runs busted in Lua 5.4. Debian's program is a Lua script that its first line
# would start in whatever `lua` is; LuaRocks' is a shell script that knows its Lua.
find_busted() {
    program=$(command -v "${BUSTED:-busted}" || command -v busted-5.4) || return 1
    case $(head -n 1 "$program") in
        *lua*) BUSTED_COMMAND="$LUA $program" ;;
        *) BUSTED_COMMAND=$program ;;
    esac
    $BUSTED_COMMAND --version > "$scratch/log" 2>&1
}

has_clang() {
    CC=clang "$0" configure "$scratch/clang.mk" > "$scratch/log" 2>&1
}

# TORCH_PYTHON: a Python that has PyTorch and torchvision.
find_torch() {
    for TORCH_PYTHON in ${PYTHON:-} python3 /usr/bin/python3; do
        $TORCH_PYTHON -c 'import torch, torchvision' > "$scratch/log" 2>&1 && return 0
    done
    return 1
}

has_arm_compiler() {
    CC=aarch64-linux-gnu-gcc has_compiler
}

# Prints the names of what the level (build, test, ...) needs and this machine lacks.
missing() {
    find_lua || echo "Lua 5.4"
    if [ "$1" = arm ]; then
        has_arm_compiler || echo "a compiler for Arm (aarch64-linux-gnu-gcc)"
        qemu-aarch64 --version > /dev/null 2>&1 || echo "qemu-aarch64"
        return
    fi
    compiler=yes
    has_compiler || compiler=no
    [ $compiler = yes ] || printf 'a C compiler that works (%s)\n' "$CC"
    [ "$1" = engine ] && return
    [ $compiler = no ] || find_lua_headers || echo "the headers of Lua 5.4"
    find_openblas || echo "OpenBLAS"
    [ "$1" = build ] && return
    if [ "$1" = compare ]; then
        find_torch || echo "PyTorch and torchvision for Python"
        return
    fi
    has_cmocka || echo "cmocka"
    { find_lua && find_busted; } || echo "busted for Lua 5.4"
    pkg-config --version > /dev/null 2>&1 || echo "pkg-config"
    [ "$1" = test ] && return
    has_clang || echo "clang"
}

# ---- Installing ---------------------------------------------------------------------------------

debian_packages() {
    if [ "$1" = arm ]; then
        printf 'lua5.4 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user'
        return
    fi
    printf 'gcc libc6-dev lua5.4 liblua5.4-dev libopenblas0-openmp'
    printf ' zlib1g-dev libpng-dev libjpeg-dev'
    case $1 in
        test) printf ' libcmocka-dev lua-busted pkg-config' ;;
        ci) printf ' libcmocka-dev lua-busted pkg-config clang' ;;
        compare) printf ' python3-torch python3-torchvision' ;;
    esac
}

debian_line() {
    printf 'apt-get update && apt-get install -y --no-install-recommends %s' "$(debian_packages "$1")"
}

# $1: the level, $2: what a system calls the tools for tests. What comes behind the packages to
# build, on a system that is not Debian's kin.
more_to_install() {
    case $1 in
        build) ;;
        compare) printf ' && python3 -m pip install torch torchvision' ;;
        *) printf ' %s' "$2" ;;
    esac
}

# The one line that installs everything of the level on this system, as its administrator.
install_line() {
    rocks='luarocks --lua-version 5.4 install busted'
    if command -v apt-get > /dev/null; then
        as="su -c '%s'"
        command -v sudo > /dev/null && as="sudo sh -c '%s'"
        [ "$(id -u)" = 0 ] && as='%s'
        # The format is one of the three above.
        # shellcheck disable=SC2059
        printf "$as" "$(debian_line "$1")"
    elif [ "$1" = arm ]; then
        printf '(with the package manager of your system) lua-5.4 qemu-user, and gcc as'
        printf ' aarch64-linux-gnu-gcc with the C library of Arm'
    elif command -v dnf > /dev/null; then
        printf 'dnf install gcc make lua lua-devel openblas-openmp zlib-devel libpng-devel %s%s' \
            libjpeg-turbo-devel \
            "$(more_to_install "$1" "libcmocka-devel pkgconf luarocks && $rocks")"
    elif command -v apk > /dev/null; then
        printf 'apk add gcc make musl-dev lua5.4 lua5.4-dev openblas zlib-dev libpng-dev %s%s' \
            libjpeg-turbo-dev "$(more_to_install "$1" 'cmocka-dev pkgconf lua5.4-busted')"
    elif [ "$(uname -s)" = Darwin ]; then
        printf 'xcode-select --install; brew install lua@5.4 openblas libpng jpeg-turbo%s' \
            "$(more_to_install "$1" "cmocka pkgconf luarocks && $rocks")"
    else
        printf '(with the package manager of your system) gcc make lua-5.4 openblas zlib libpng'
        printf ' libjpeg-turbo%s' "$(more_to_install "$1" "cmocka pkg-config; $rocks")"
    fi
}

say_missing() {
    echo "resin: this machine lacks what is needed to $2:" >&2
    printf '%s\n' "$lacking" | sed 's/^/resin:   - /' >&2
    echo "resin: this line installs it (with the rights of the administrator, but for macOS):" >&2
    printf '\n    %s\n\n' "$(install_line "$1")" >&2
}

may_install() {
    command -v apt-get > /dev/null || return 1
    [ "$(id -u)" = 0 ] && return 0
    # Without a terminal nobody could answer sudo's question.
    command -v sudo > /dev/null && { [ -t 0 ] || sudo -n true 2> /dev/null; }
}

install() {
    case $1 in
        build) purpose='build' ;;
        compare) purpose='build and compare with PyTorch' ;;
        arm) purpose='test for Arm' ;;
        *) purpose='build and test' ;;
    esac
    lacking=$(missing "$1")
    [ -n "$lacking" ] || return 0
    if ! may_install; then
        say_missing "$1" "$purpose"
        return 1
    fi
    echo "resin: missing: $(printf '%s' "$lacking" | tr '\n' ',' | sed 's/,/, /g')"
    echo "resin: installing with: $(install_line "$1")"
    if sh -c "$(install_line "$1")"; then
        lacking=$(missing "$1")
        [ -n "$lacking" ] || return 0
    fi
    echo "resin: the packages could not be installed, or were not enough" >&2
    say_missing "$1" "$purpose"
    return 1
}

# ---- Configuring --------------------------------------------------------------------------------

configure() {
    lacking=$(missing "${2:-build}")
    if [ -n "$lacking" ]; then
        say_missing build build
        if command -v "${CC%% *}" > /dev/null && ! has_compiler; then
            echo "resin: $CC said:" >&2
            head -n 5 "$scratch/log" | sed 's/^/resin:   /' >&2
        fi
        return 1
    fi
    find_lua
    LUA_FLAGS='' LUA_LIBS=''
    [ "${2:-}" = engine ] || find_lua_headers
    find_openblas
    find_kernel_sets
    FEATURES='' FEATURE_LIBS='' FEATURE_REQUIRES='' zlib=no png=no jpeg=no
    find_zlib && zlib=yes && add_feature ZLIB zlib
    find_png && png=yes && add_feature PNG libpng
    find_jpeg && jpeg=yes && add_feature JPEG libjpeg
    find_busted || BUSTED_COMMAND=''
    mkdir -p "$(dirname "$1")"
    cat > "$1" << END
# Written by scripts/setup.sh: what was found on this machine.
LUA := $LUA
LUA_FLAGS := $LUA_FLAGS
LUA_LIBS := $LUA_LIBS
OPENBLAS_PATHS := $OPENBLAS_PATHS
KERNEL_SETS := $KERNEL_SETS
FEATURES := $FEATURES
FEATURE_LIBS := $FEATURE_LIBS
FEATURE_REQUIRES := $FEATURE_REQUIRES
BUSTED_COMMAND := $BUSTED_COMMAND
END
    echo "resin: found $($LUA -v | cut -d' ' -f1,2), OpenBLAS (${OPENBLAS_PATHS%%:*})," \
        "kernels for $KERNEL_SETS; zlib (gzipped data): $zlib, libpng: $png, libjpeg: $jpeg"
}

# ---- cmocka for another processor ---------------------------------------------------------------

# With lists of packages of its own in $scratch, so that neither the administrator's rights nor a
# second architecture in the system are needed.
unpack_cmocka() {
    [ -e "$2/usr/include/cmocka.h" ] && return 0
    { command -v apt-get && command -v dpkg-deb; } > /dev/null || {
        echo "resin: this needs the packages of Debian or Ubuntu: unpack cmocka, built for $1," \
            "into $2 (usr/include, usr/lib)" >&2
        return 1
    }
    echo "resin: fetching Debian's libcmocka-dev for $1 into $2"
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" "$2.new" && chmod 755 "$scratch"
    : > "$scratch/status"
    for action in update 'download libcmocka-dev libcmocka0'; do
        # An action and its packages: meant to be split.
        # shellcheck disable=SC2086
        (cd "$scratch" && apt-get -q -o APT::Architecture="$1" -o APT::Architectures="$1" \
            -o Dir::State="$scratch" -o Dir::State::status="$scratch/status" \
            -o Dir::Cache="$scratch" -o APT::Sandbox::User=root $action > "$scratch/log" 2>&1) || {
            sed 's/^/resin:   /' "$scratch/log" >&2
            return 1
        }
    done
    for package in "$scratch"/libcmocka*.deb; do dpkg-deb -x "$package" "$2.new" || return 1; done
    rm -rf "$2" && mv "$2.new" "$2"
}

case ${1:-}:${2:-} in
    configure:?*) configure "$2" "${3:-}" ;;
    install:build | install:test | install:ci | install:compare | install:arm) install "$2" ;;
    cmocka:?*) unpack_cmocka "$2" "${3:?a folder}" ;;
    *)
        sed -n 's/^#   scripts/usage: scripts/p' "$0" >&2
        exit 2
        ;;
esac
